# An image with dinomed3d and pointseg; docs/how_to/docker.md has the commands.
#
#   CPU:   docker build -t dinomed3d --build-arg TORCH_INDEX=ADDRESS .
#   CUDA:  docker build -t dinomed3d:cuda --build-arg BASE=nvidia/cuda:12.8.1-base-ubuntu24.04 .
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# Address of PyTorch's wheels for this kind of device, from PyTorch's installation page; without it those of the
# default index, which work on GPUs and CPUs and take some gigabytes. CUDA's libraries are in the wheels; of the base,
# only what tells NVIDIA's container toolkit to pass the GPU on is needed.
ARG TORCH_INDEX

# CUDA's bases have no Python. A C compiler and Python's headers are what torch.compile needs in training. Their
# versions are those of the base.
# hadolint ignore=DL3008
RUN if ! command -v pip > /dev/null; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends python3-dev python3-venv gcc libc6-dev \
        && rm -rf /var/lib/apt/lists/*; \
    fi \
    && "$(command -v python3)" -m venv /opt/dinomed3d
ENV PATH=/opt/dinomed3d/bin:$PATH

# Before the source, so that a change of ours does not download PyTorch again; torchvision, which timm
# needs, must be of the same kind. The versions are those that pyproject.toml allows.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} "torch>=2.4,!=2.9.*" torchvision

COPY pyproject.toml README.md LICENSE /src/
COPY dinomed3d /src/dinomed3d
COPY pointseg /src/pointseg
COPY planners /src/planners
RUN pip install --no-cache-dir "/src[dicom]"

# Weights and models are mounted, never downloaded. What libraries keep for later goes to /tmp, the one
# place that can be written in a read-only container.
ENV HF_HUB_OFFLINE=1 \
    HOME=/tmp \
    LOGNAME=dinomed3d \
    MPLCONFIGDIR=/tmp/matplotlib \
    TORCHINDUCTOR_CACHE_DIR=/tmp/inductor \
    TRITON_CACHE_DIR=/tmp/triton \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp dinomed3d
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["dinomed3d"]
CMD ["--help"]
