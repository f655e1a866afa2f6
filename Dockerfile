# The connector's image. The base is Airbyte's image for Python connectors, as in metadata.yaml.
# Another base must have python3 (3.10 to 3.13) with pip and venv.
ARG BASE_IMAGE=docker.io/airbyte/python-connector-base:4.0.2@sha256:9fdb1888c4264cf6fee473649ecb593f56f58e5d0096a87ee0b231777e2e3e73

FROM ${BASE_IMAGE} AS build

WORKDIR /build

# First, install the locked packages that the connector runs with; the cache keeps this layer until
# the lock changes. A virtual environment leaves the base's build tools behind. Both secrets are
# optional: a pip.conf, and certificates to use in it. They and pip's cache exist only in this step.
COPY requirements.lock ./
RUN --mount=type=secret,id=pip_conf \
    --mount=type=secret,id=ca_bundle \
    --mount=type=cache,target=/var/cache/pip \
    export PIP_CONFIG_FILE=/run/secrets/pip_conf PIP_CACHE_DIR=/var/cache/pip \
    && python3 -m venv --without-pip /airbyte/venv \
    && python3 -m pip --python /airbyte/venv/bin/python install --progress-bar off \
        --require-hashes --requirement requirements.lock \
    # Half of the size of pandas and NumPy is their own tests.
    && find /airbyte/venv/lib/*/site-packages/pandas /airbyte/venv/lib/*/site-packages/numpy \
        -type d -name tests -prune -exec rm -r {} +

# Then install the connector itself, built with the locked setuptools and without an index.
COPY . .
RUN python3 -m pip --python /airbyte/venv/bin/python install --progress-bar off \
        --no-index --no-deps --no-build-isolation .

FROM ${BASE_IMAGE}

# Airbyte's base has this user; another base may not.
RUN id airbyte >/dev/null 2>&1 \
    || useradd --uid 1000 --user-group --no-create-home --shell /usr/sbin/nologin airbyte

COPY --from=build /airbyte/venv /airbyte/venv
WORKDIR /airbyte/integration_code
COPY main.py ./

# The environment's `python` comes first: a base may have only python3.
ENV PATH=/airbyte/venv/bin:$PATH
ENV AIRBYTE_ENTRYPOINT="python /airbyte/integration_code/main.py"
ENTRYPOINT ["python", "/airbyte/integration_code/main.py"]
USER airbyte

LABEL io.airbyte.version=0.3.0
LABEL io.airbyte.name=airbyte/source-truto-segments
