"""``flask budgets``: set, list and delete budgets."""

from tests.support.command_line import assert_one_clear_error, result

ORG = ("--organization", "org-a")


def test_a_budget_is_set_listed_and_deleted(flask):
    done = flask("budgets", "set", *ORG, "--period", "month", "--tokens", "5000")
    assert (done.returncode, done.stdout) == (0, "org-a: 5,000 tokens a month\n")
    agent = ("--agent", "agent-1", "--period", "day")
    made = result(flask("budgets", "set", *ORG, *agent, "--tokens", "7", "--json"))
    assert made == {"agentId": "agent-1", "period": "day", "tokens": 7}
    listed = flask("budgets", "list", *ORG).stdout.splitlines()
    assert [line.split()[:3] for line in listed[1:]] == [
        ["(all)", "month", "5,000"],
        ["agent-1", "day", "7"],
    ]
    data = result(flask("budgets", "list", *ORG, "--json"))["data"]
    assert data[1] == made | {"used": 0, "remaining": 7, "projected": 0, "crossesOn": None}
    gone = result(flask("budgets", "delete", *ORG, *agent, "--json"))
    assert gone == made
    refused = assert_one_clear_error(flask("budgets", "delete", *ORG, *agent))
    assert "there is no such budget" in refused
    assert flask("budgets", "list", "--organization", "org-b").stdout == "no budgets\n"
