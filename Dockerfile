# Two images, each a target:
#   service  the service and its jobs (`lockstep serve`, `gc`, `fsck`, `warm`, …)
#   client   `lockstep fetch`, for Pods whose own image has no Python at hand
#
#   buildah build --format docker --target service --tag lockstep .
#
# (`--format docker`, because OCI's own image format has no place for a health check.)
#
# Every base is an argument, so that a mirror, a digest or a hardened image can stand in. SERVICE_BASE is Debian-like with
# Python 3.11+ and pip, CLIENT_BASE has any Python 3.10+ and pip.
ARG SERVICE_BASE=python:3.13-slim-trixie
ARG CLIENT_BASE=python:3.14-alpine

# What compiles byte-code: one image a supported minor version, with that Python under /usr/local, for a libc that is no
# newer than SERVICE_BASE's. An image without that Python leaves the version out; its bundles then have no byte-code.
ARG PYTHON_3_10=python:3.10-slim-trixie
ARG PYTHON_3_11=python:3.11-slim-trixie
ARG PYTHON_3_12=python:3.12-slim-trixie
ARG PYTHON_3_13=python:3.13-slim-trixie
ARG PYTHON_3_14=python:3.14-slim-trixie
ARG PYTHON_3_15=python:3.15-slim-trixie

FROM ${PYTHON_3_10} AS python-3.10
FROM ${PYTHON_3_11} AS python-3.11
FROM ${PYTHON_3_12} AS python-3.12
FROM ${PYTHON_3_13} AS python-3.13
FROM ${PYTHON_3_14} AS python-3.14
FROM ${PYTHON_3_15} AS python-3.15

# --- The interpreters, down to what compiling needs -----------------------------------------------------------------------
FROM ${SERVICE_BASE} AS interpreters
COPY --from=python-3.10 /usr/local /from/3.10
COPY --from=python-3.11 /usr/local /from/3.11
COPY --from=python-3.12 /usr/local /from/3.12
COPY --from=python-3.13 /usr/local /from/3.13
COPY --from=python-3.14 /usr/local /from/3.14
COPY --from=python-3.15 /usr/local /from/3.15
COPY deploy/image/interpreters.sh /
RUN sh /interpreters.sh /from /opt/python

# --- The service's environment: the lock, hashes checked, and this project ------------------------------------------------
FROM ${SERVICE_BASE} AS service-build
WORKDIR /src
COPY deploy/requirements/service.txt deploy/requirements/build.txt deploy/requirements/
RUN python3 -m venv --without-pip /opt/lockstep \
    && python3 -m pip --python /opt/lockstep/bin/python install --no-cache-dir --disable-pip-version-check \
        --root-user-action=ignore --require-hashes --only-binary :all: -r deploy/requirements/service.txt
# What builds the wheel is in this stage alone.
RUN python3 -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --require-hashes \
        --only-binary :all: --target /build -r deploy/requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY resolver resolver
COPY storage storage
RUN PYTHONPATH=/build python3 -m hatchling build --target wheel \
    && python3 -m pip --python /opt/lockstep/bin/python install --no-cache-dir --disable-pip-version-check \
        --root-user-action=ignore --no-index --no-deps dist/*.whl

# --- service --------------------------------------------------------------------------------------------------------------
FROM ${SERVICE_BASE} AS service
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap ca-certificates \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/* /var/log/* /root/.cache
COPY --from=interpreters /opt/python /opt/python
COPY --from=service-build /opt/lockstep /opt/lockstep
# What is found by name on PATH: python3.X, where the base has none itself. Their libraries are told to the loader.
RUN for python in /opt/python/*/bin/python3.*; do \
        if [ -e "$python" ]; then \
            [ -e "/usr/local/bin/${python##*/}" ] || ln -s "$python" /usr/local/bin/; \
            echo "${python%/bin/*}/lib" >> /etc/ld.so.conf.d/zz-lockstep-pythons.conf; \
        fi; \
    done \
    && ldconfig && rm -rf /var/cache/ldconfig/* \
    && install -d -m 0700 -o 10001 -g 10001 /var/lib/lockstep
ENV PATH=/opt/lockstep/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    LOCKSTEP_DATA_DIR=/var/lib/lockstep \
    LOCKSTEP_LISTEN=0.0.0.0:8080
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="lockstep" \
      org.opencontainers.image.description="Locks a workload's Python requirements once and gives every replica the same bundle" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 10001:10001
WORKDIR /var/lib/lockstep
VOLUME ["/var/lib/lockstep"]
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/opt/lockstep/bin/python", "-I", "-S", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['LOCKSTEP_LISTEN'].rpartition(':')[2] + '/healthz', timeout=4)"]
ENTRYPOINT ["/opt/lockstep/bin/lockstep"]
CMD ["serve"]

# --- The client, and zstd where this Python has none of its own -----------------------------------------------------------
FROM ${CLIENT_BASE} AS client-build
WORKDIR /src
COPY deploy/requirements/service.txt ./
COPY resolver/__init__.py resolver/__init__.py
COPY resolver/client resolver/client
RUN sed -n '/^backports-zstd==/,/[^\\]$/p' service.txt > zstd.txt \
    && python3 -m pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore --require-hashes \
        --only-binary :all: --no-deps --root /out -r zstd.txt \
    && python3 -m resolver.client.build /out/usr/local/lib/lockstep/lockstep.pyz

# --- client ---------------------------------------------------------------------------------------------------------------
FROM ${CLIENT_BASE} AS client
COPY --from=client-build /out /
ENV PYTHONDONTWRITEBYTECODE=1
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="lockstep-client" \
      org.opencontainers.image.description="Fetches the bundle of a workload's Python requirements from Lockstep" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 10001:10001
# It runs, does its work and ends: nothing to ask for its health.
HEALTHCHECK NONE
ENTRYPOINT ["python3", "-I", "/usr/local/lib/lockstep/lockstep.pyz"]
CMD ["fetch", "--help"]
