"""E-mail: a message as plain text and HTML, and sending it by SMTP."""

import smtplib
import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from app.alerts.payloads import Message, shorten
from app.config.parsing import ADDRESS, SmtpServer

SECONDS = 10.0
_SUBJECT = 200
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True
)

__all__ = ["ADDRESS", "MailError", "mail", "mail_text", "send"]


class MailError(Exception):
    """An e-mail that the server did not take; ``status`` is its reply code, if there is one."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


def mail(message: Message, sender: str, recipient: str) -> bytes:
    """The e-mail of a message, always the same bytes.

    A header cannot be injected: the addresses were checked, and a subject has no line breaks.
    """
    made = EmailMessage(policy=SMTP)
    made["Subject"] = " ".join(shorten(message.title, _SUBJECT).split())
    made["From"] = Address("AgentIdP Analytics", addr_spec=sender)
    made["To"] = Address(addr_spec=recipient)
    made["Date"] = format_datetime(message.created)
    made["Message-ID"] = f"<{message.id}@{sender.rpartition('@')[2]}>"
    made["Auto-Submitted"] = "auto-generated"
    # Base64 at all times: the transfer encoding must not depend on the text.
    made.set_content(mail_text(message), cte="base64")
    made.add_alternative(_html(message), subtype="html", cte="base64")
    made.set_boundary(f"=={sha256(message.id.encode()).hexdigest()[:32]}==")
    return made.as_bytes()


def mail_text(message: Message) -> str:
    """The plain text of a message."""
    facts = "\n".join(f"{name}: {value}" for name, value in message.facts)
    parts = [message.text, facts, message.link or ""]
    return "\n\n".join(filter(None, map(_clean, parts))) + "\n"


def send(
    server: SmtpServer, certificates: ssl.SSLContext, sender: str, to: str, sent: bytes
) -> None:
    """Send an e-mail.

    Raises:
        MailError: the server did not take it, or could not be reached.
    """
    try:
        with _connected(server, certificates) as smtp:
            if server.user is not None and server.password is not None:
                smtp.login(server.user, server.password)
            smtp.sendmail(sender, [to], sent)
    except smtplib.SMTPRecipientsRefused as error:
        code = next(iter(error.recipients.values()))[0]
        raise MailError("the mail server refused the address", code) from None
    except smtplib.SMTPResponseException as error:
        raise MailError("the mail server refused the message", error.smtp_code) from None
    except smtplib.SMTPException:
        raise MailError("the mail server did not take the message") from None
    except ssl.SSLError:
        raise MailError("TLS with the mail server failed") from None
    except TimeoutError:
        raise MailError("timeout") from None
    except OSError:
        raise MailError("the mail server could not be reached") from None


def _connected(server: SmtpServer, certificates: ssl.SSLContext) -> smtplib.SMTP:
    if server.security == "tls":
        return smtplib.SMTP_SSL(server.host, server.port, timeout=SECONDS, context=certificates)
    smtp = smtplib.SMTP(server.host, server.port, timeout=SECONDS)
    try:
        if server.security == "starttls":
            smtp.starttls(context=certificates)
    except BaseException:
        smtp.close()
        raise
    return smtp


def _html(message: Message) -> str:
    if message.html is not None:
        return message.html
    paragraphs = [one.strip() for one in _clean(message.text).split("\n\n")]
    facts = [(name, _clean(value)) for name, value in message.facts]
    return _TEMPLATES.get_template("message.html").render(
        title=_clean(message.title), paragraphs=paragraphs, facts=facts, link=message.link
    )


def _clean(text: str) -> str:
    return "".join(one for one in text if one == "\n" or one.isprintable())
