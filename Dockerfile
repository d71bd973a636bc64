# CPU:   docker build -t entitysam .
# CUDA:  docker build -t entitysam:cuda --build-arg TORCH_BACKEND=cu130 .     (run with --gpus all)
# Use:   docker run --rm -v "$PWD:/data" entitysam segment clip.mp4 -o out/clip
FROM python:3.12-slim
ARG TORCH_BACKEND=cpu
ARG EXTRAS=label,sam

RUN pip install --no-cache-dir uv
WORKDIR /opt/entitysam
COPY setup.py pyproject.toml constraints.txt MANIFEST.in README.md LICENSE ./
COPY entitysam entitysam
COPY configs configs
COPY checkpoints checkpoints
RUN uv pip install --system --no-cache --torch-backend "$TORCH_BACKEND" --constraint constraints.txt ".[$EXTRAS]"

RUN useradd --create-home user
USER user
WORKDIR /data
ENTRYPOINT ["entitysam"]
CMD ["--help"]
