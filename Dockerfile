# Two images from one file:
#   docker build --target api .       the api, the migrations, `basin key …`; no PyTorch
#   docker build --target worker .    what trains: the same, and PyTorch
# TORCH_INDEX is the address of the index that PyTorch comes from: one of CPU builds, or of builds for one release of CUDA.
# Without it pip's own index is asked; what that has for Linux works with and without a GPU, and is several gigabytes.

FROM python:3.11-slim-bookworm AS base
ENV PATH=/opt/basin/bin:$PATH PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 PIP_DISABLE_PIP_VERSION_CHECK=1

FROM base AS wheels
WORKDIR /source
COPY . .
RUN pip wheel --quiet --no-cache-dir --no-deps --wheel-dir /wheels . ./sdk

# Dependencies come first and by themselves: they change seldom, and whoever changes code need not wait for them.
FROM base AS api-dependencies
WORKDIR /locks
COPY deploy/locks/api.lock .
RUN python3 -m venv --without-pip /opt/basin \
 && pip --python /opt/basin/bin/python install --quiet --no-cache-dir -r api.lock

FROM api-dependencies AS worker-dependencies
ARG TORCH_INDEX=
COPY deploy/locks/worker.lock .
RUN if [ -n "$TORCH_INDEX" ]; then \
      pip --python /opt/basin/bin/python install --quiet --no-cache-dir --no-deps --index-url "$TORCH_INDEX" \
        "$(grep '^torch==' worker.lock)"; \
    fi \
 && pip --python /opt/basin/bin/python install --quiet --no-cache-dir -r worker.lock

# Users without a password, a shell or a name on the host. The service's own has two folders: one where volumes go, and one
# for secrets that nobody else finds a way into. Runners have another user where the worker may change to it (see
# docker-compose.yml): what it writes belongs to its group, in which the service is too.
FROM base AS runtime
RUN groupadd --gid 10001 basin \
 && groupadd --gid 10002 basin-runner \
 && useradd --uid 10001 --gid 10001 --groups basin-runner --no-log-init --no-create-home \
      --home-dir /var/lib/basin --shell /usr/sbin/nologin basin \
 && useradd --uid 10002 --gid 10002 --no-log-init --no-create-home \
      --home-dir /tmp --shell /usr/sbin/nologin basin-runner \
 && install --directory --owner basin --group basin --mode 0700 /var/lib/basin /etc/basin
ENV BASIN_HOME=/var/lib/basin HOME=/var/lib/basin
WORKDIR /var/lib/basin
ENTRYPOINT ["basin"]

FROM runtime AS worker
COPY --from=worker-dependencies /opt/basin /opt/basin
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip --python /opt/basin/bin/python install --quiet --no-cache-dir --no-deps --no-index /wheels/*.whl
USER 10001:10001
CMD ["worker"]

# The last one is what a plain `docker build .` makes.
FROM runtime AS api
COPY --from=api-dependencies /opt/basin /opt/basin
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip --python /opt/basin/bin/python install --quiet --no-cache-dir --no-deps --no-index /wheels/*.whl
# Every address of the container; which of them others reach is decided where its port is published.
ENV BASIN_HOST=0.0.0.0
USER 10001:10001
EXPOSE 8000
CMD ["api"]
