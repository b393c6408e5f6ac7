# One image for web, jobs and migration: the web by default, `python -m jobs` and `flask db upgrade`
# as commands. It writes to /dev/shm only. docs/operate/deploying.md explains how to run it.

# The tag moves with security fixes. To pin one image instead, append the digest that
# `docker buildx imagetools inspect python:3.11-slim-bookworm` prints: python:…@sha256:…
FROM python:3.11-slim-bookworm AS base
WORKDIR /opt/agentidp-analytics

FROM base AS build
# The environment has no pip. Only wheels are installed: a build would fetch packages without a hash.
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
# root owns every file, so that the service cannot change its own code.
COPY --from=build /opt/agentidp-analytics /opt/agentidp-analytics
# HOST: 127.0.0.1 cannot be reached from outside a container. The port is published by the host.
ENV PATH=/opt/agentidp-analytics/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    APP_ENV=production \
    HOST=0.0.0.0
# A number, so that Kubernetes can verify that the user is not root.
USER 10001:10001
EXPOSE 3000
STOPSIGNAL SIGTERM
# http.client asks no proxy, whatever http_proxy says.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import http.client, os, sys; web = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT', '3000')), timeout=4); web.request('GET', '/health'); sys.exit(web.getresponse().status != 200)"]
# The heartbeat files of gunicorn's workers are in memory: on a slow disk they block the workers.
CMD ["gunicorn", "--worker-tmp-dir", "/dev/shm", "wsgi:app"]
