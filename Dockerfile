# bacpipe in a container, without (cpu) and with (cuda) the libraries of NVIDIA cards:
#   docker build --target cpu -t bacpipe .
#   docker run --rm -v "$PWD:/data" -v bacpipe_weights:/weights bacpipe audio_dir=recordings
FROM python:3.13-slim AS code
WORKDIR /opt/bacpipe
COPY pyproject.toml constraints.txt README.md LICENSE config.yaml settings.yaml ./
COPY bacpipe ./bacpipe
# Weights outlive the container in a volume; matplotlib and numba need a place to write, whoever runs.
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/weights MPLCONFIGDIR=/tmp/matplotlib \
    NUMBA_CACHE_DIR=/tmp/numba
RUN mkdir -m 1777 /weights
ENTRYPOINT ["bacpipe"]

FROM code AS cuda
RUN pip install -c constraints.txt .
WORKDIR /data

FROM code AS cpu
RUN pip install -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu .
WORKDIR /data
