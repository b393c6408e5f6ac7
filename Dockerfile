# One image for all: the web by default, `python -m jobs` and `flask db upgrade` as commands.
# docs/operate/deploying.md says how it is run: nothing in it needs to be written to but /dev/shm.

# A tag moves with security fixes. To build on exactly one image instead, append the digest that
# `docker buildx imagetools inspect python:3.11-slim-bookworm` prints: python:…@sha256:…
FROM python:3.11-slim-bookworm AS base
WORKDIR /opt/agentidp-analytics

FROM base AS build
# The environment has no pip of its own; wheels alone, since building would fetch what no hash holds.
RUN python -m venv --without-pip .venv
COPY requirements.txt .
RUN pip --python .venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --only-binary :all: --require-hashes -r requirements.txt
COPY app app
COPY jobs jobs
COPY migrations migrations
COPY wsgi.py gunicorn.conf.py ./
RUN python -m compileall -q app jobs migrations wsgi.py

FROM base
# Everything stays root's, so that the service cannot change its own code.
COPY --from=build /opt/agentidp-analytics /opt/agentidp-analytics
# HOST: in a container every interface is the container's own; what is published, and to whom, is
# decided outside. On 127.0.0.1 nobody could reach it.
ENV PATH=/opt/agentidp-analytics/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    APP_ENV=production \
    HOST=0.0.0.0
# A number, so that Kubernetes can tell that it is not root.
USER 10001:10001
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ.get('PORT', '3000')}/health\", timeout=4)"]
# The heartbeat of gunicorn's workers belongs in memory: on a slow disk it blocks them.
CMD ["gunicorn", "--worker-tmp-dir", "/dev/shm", "wsgi:app"]
