# spadunet in a container. All is installed at build time; nothing is downloaded at run time.
#
#   CPU   docker build -t spadunet .
#   CUDA  docker build -t spadunet:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#
#   docker run --rm -u "$(id -u):$(id -g)" -v "$PWD:/data" spadunet   the demo, into ./spadunet_demo_output
#   docker run --rm -u "$(id -u):$(id -g)" -v "$PWD:/data" spadunet spadunet_predict -i images -o labels -m model
#
# With a GPU add `--gpus all`; for training add `--shm-size 8g`, since the loaders hand batches over in shared memory.

FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /opt/spadunet

# Torch first and alone: it is the largest part and changes least.
COPY constraints.txt .
RUN pip install torch -c constraints.txt --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple

COPY . .
RUN pip install . -c constraints.txt && rm -rf build ./*.egg-info

# A user without rights over the system. The folders stay writable under another `-u`.
RUN useradd --create-home --uid 1000 spadunet \
    && mkdir -p /data /tmp/matplotlib \
    && chmod 1777 /data /tmp/matplotlib
ENV HOME=/home/spadunet \
    MPLCONFIGDIR=/tmp/matplotlib
USER spadunet

WORKDIR /data
CMD ["spadunet_demo"]
