# One image for the service, the worker, Prefect's server and MLflow's: kgrec with the versions of constraints.txt.
FROM python:3.11.13-slim-bookworm AS build
# PyTorch for the CPU alone; the index of PyPI itself would bring a CUDA build of several GB on some platforms.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/kgrec
WORKDIR /source
# What changes seldom first: a change of kgrec's own code installs nothing else again.
COPY constraints.txt ./
RUN /opt/kgrec/bin/pip install --no-deps --index-url "$TORCH_INDEX" "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml README.md ./
COPY kgrec kgrec
COPY feature_store feature_store
COPY pipelines pipelines
COPY mlflow mlflow
RUN /opt/kgrec/bin/pip wheel --no-deps --wheel-dir /wheels . \
 && /opt/kgrec/bin/pip install --constraint constraints.txt "$(ls /wheels/kgrec-*.whl)[postgresql,delta]"

FROM python:3.11.13-slim-bookworm
RUN groupadd --gid 10001 kgrec \
 && useradd --uid 10001 --gid kgrec --home-dir /var/lib/kgrec --create-home --shell /usr/sbin/nologin kgrec \
 && install -d -o kgrec -g kgrec /var/lib/kgrec/workspace /var/lib/mlflow /var/lib/prefect
COPY --from=build /opt/kgrec /opt/kgrec
COPY --chmod=755 deploy/with-secrets /usr/local/bin/with-secrets
ENV PATH=/opt/kgrec/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    DO_NOT_TRACK=1 MLFLOW_DISABLE_TELEMETRY=true PREFECT_SERVER_ANALYTICS_ENABLED=false OMP_WAIT_POLICY=PASSIVE
USER 10001:10001
WORKDIR /var/lib/kgrec
ENTRYPOINT ["with-secrets"]
CMD ["kgrec", "--help"]
