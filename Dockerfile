# The page and the JSON interface of predict.py web, on a CPU, not as root; when it runs it needs no network. Checked by
# hadolint; it was never built.
#
#   docker build -t mobilebert-squad .
#   docker run --rm --network none mobilebert-squad predict.py demo --sample
#   docker run --rm -p 127.0.0.1:7860:7860 mobilebert-squad
#
# Open the address that it prints, with 127.0.0.1 for 0.0.0.0. With a model and documents of yours, which it only reads:
#
#   docker run --rm -p 127.0.0.1:7860:7860 -v "$PWD/output/final_model:/model:ro" -v "$PWD/papers:/papers:ro" \
#       mobilebert-squad predict.py web --host 0.0.0.0 --token --model_dir /model --documents /papers
FROM python:3.11-slim

WORKDIR /app
COPY requirements*.txt constraints.txt ./
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir -r requirements.txt -r requirements-web.txt
COPY . .
# the sample model answers with ONNX Runtime; indexes of documents and corrections are written here
RUN python tools/export_onnx.py --sample \
    && useradd --create-home --uid 1000 reader \
    && mkdir -p data/cache output \
    && chown -R reader data/cache output
USER 1000
EXPOSE 7860
ENTRYPOINT ["python"]
CMD ["predict.py", "web", "--sample", "--host", "0.0.0.0", "--token"]
