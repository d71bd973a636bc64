"""A chat-completions server on loopback that has the right answers, checks requests, and fails on demand."""

import base64
import hashlib
import io
import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

KEY = "sk-test-0123456789abcdef"


def digest(image):
    return hashlib.sha256(image).hexdigest()


class ChatServer(ThreadingHTTPServer):
    """Answers from `truth`: digest of an image -> class name (or any value with `raw`).

    Attributes:
        truth: the right answers; an image that is not in it is a problem.
        fault: number of the request (from 0) -> kind of fault, or None.
        requests: number of requests so far.
        delivered: digest -> number of complete, valid answers sent for the image.
        problems: problems of the requests.
        bodies: decoded requests.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, truth=None, fault=lambda number: None, kind="masked_crop", sides=(224, 512), **options):
        """Options: raw, pause = seconds before every answer, hang = seconds before the connection closes on the fault "hang"."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.truth = {} if truth is None else truth
        self.fault, self.kind, self.sides = fault, kind, sides
        self.raw, self.pause, self.hang = (options.get(*one) for one in (("raw", False), ("pause", 0), ("hang", 6)))
        self.requests = 0
        self.faults = Counter()
        self.delivered = Counter()
        self.problems = []
        self.bodies = []
        self.at_once = self.most_at_once = 0
        self.starts = []
        self.lock = threading.Lock()

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, address):
        """Ignores clients that close the connection."""


@contextmanager
def serving(*arguments, **options):
    server = ChatServer(*arguments, **options)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        server = self.server
        with server.lock:
            number, server.requests = server.requests, server.requests + 1
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            server.starts.append(time.monotonic())
        try:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.bodies.append(body)
            images = self.check(body)
            time.sleep(server.pause)
            self.answer(server.fault(number), body, images)
        finally:
            with server.lock:
                server.at_once -= 1

    def check(self, body):
        """The images of a request; its problems go to `problems`."""
        server, problems = self.server, []
        if self.path != "/v1/chat/completions":
            problems.append(f"path {self.path}")
        if self.headers["Authorization"] != f"Bearer {KEY}":
            problems.append("wrong key")
        system, user = body["messages"]
        if (system["role"], user["role"]) != ("system", "user") or not isinstance(system["content"], str):
            problems.append("roles")
        images = []
        for position, part in enumerate(user["content"]):
            if part["type"] == "text" and f"Image {position // 2 + 1}." not in part["text"]:
                problems.append(f"numbering: {part['text']}")
            if part["type"] == "image_url":
                head, _, data = part["image_url"]["url"].partition(",")
                if head != "data:image/jpeg;base64":
                    problems.append(f"address {head}")
                images.append(base64.b64decode(data, validate=True))
        for image in images:
            problems += check_image(image, server.kind, server.sides)
            if digest(image) not in server.truth:
                problems.append(f"unknown image {digest(image)[:8]}")
        with server.lock:
            server.problems += problems
        return images

    def answer(self, fault, body, images):
        server = self.server
        with server.lock:
            server.faults[fault] += 1
        if refusal := refuses(fault, body):
            status, error = refusal
            self.send({"error": error}, status)
            return
        if fault in ("400", "401", "403", "404", "429", "500", "503", "quota"):
            self.status(fault)
            return
        if fault == "hang":
            time.sleep(server.hang)  # then close the connection
            return
        values = {str(n): self.value(body, image) for n, image in enumerate(images, start=1)}
        good = set(values)
        if fault == "out_of_range":
            values["1"] = 99_999
            good -= {"1"}
        elif fault == "name_beside_list":
            values[str(len(values))] = "no such class"
            good -= {str(len(values))}
        elif fault == "fewer" and len(values) > 1:
            values.popitem()
            good = set()
        elif fault == "more":
            values[str(len(values) + 1)] = 0
            good = set()
        text = json.dumps(values)
        if fault == "fenced":
            text = f"Here you are:\n```json\n{text}\n```"
        elif fault == "think":
            wrong = json.dumps(dict.fromkeys(values, 0))
            text = f"<think>Perhaps {wrong}? {{no}}</think>\n{text}"
        elif fault == "trailing":
            text = f"{json.dumps(dict.fromkeys(values, 99_999))}, no: {text}\nI used {{their shape}} and {{}}."
        elif fault == "only_think":
            text, good = f"<think>{text}", set()
        elif fault == "deep":
            text, good = '{"1": ' + "[" * 100_000, set()
        elif fault == "half_answer":
            text, good = text[: len(text) // 2], set()
        elif fault == "wrong_json":
            text, good = "[" + ", ".join(map(str, range(len(values)))) + "]", set()
        elif fault == "prose":
            text, good = "I am sorry, I cannot help with that.", set()
        self.send(self.completion(text, body), half=fault == "half_body")
        if fault != "half_body":
            with server.lock:
                server.delivered.update(digest(p) for n, p in enumerate(images, start=1) if str(n) in good)

    def value(self, body, image):
        """The right answer as an index into the list that the request itself carries."""
        name = self.server.truth.get(digest(image), "not in the truth")
        if self.server.raw:
            return name
        listed = json.loads(body["messages"][0]["content"].rpartition("Classes (index: name): ")[2])
        return next((int(index) for index, text in listed.items() if text == name), -1)

    def completion(self, text, body):
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        if body.get("logprobs"):  # one token per character, each digit with probability 1/2
            listed = [{"token": c, "logprob": -0.6931471805599453 * c.isdigit(), "top_logprobs": []} for c in text]
            choice["logprobs"] = {"content": listed}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [choice],
            "usage": usage,
        }

    def status(self, fault):
        codes = {
            "400": "bad_request",
            "401": "invalid_api_key",
            "404": "model_not_found",
            "quota": "insufficient_quota",
        }
        error = {"message": f"{fault}: you sent {self.headers['Authorization']}", "code": codes.get(fault, fault)}
        headers = {"Retry-After": "0.05"} if fault == "429" else {}
        self.send({"error": error}, 429 if fault == "quota" else int(fault), headers)

    def send(self, content, status=200, headers=(), half=False):
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(data), **dict(headers)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if half else data)
        if half:
            self.close_connection = True


def refuses(fault, body):
    """Status and error body of servers that refuse a field of the request or cannot work; None = accepted."""
    if fault == "schema" and "response_format" in body:
        return 400, {"message": "'response_format.type' must be 'json_schema' or 'text'", "code": None}
    if fault in ("strict", "schema") and "temperature" in body:
        sentence = "Unsupported value: 'temperature' does not support 0 with this model."
        return 400, {"message": sentence, "param": "temperature", "code": "unsupported_value"}
    if fault == "error_body":
        return 200, {"message": "upstream model is overloaded \x1b[31m", "code": 502}
    if fault == "no_vision":
        return 500, {"message": "this model has no vision tower: image input is not supported"}
    return None


def check_image(content, kind, sides):
    """Problems of an image: format, size, red box, black background."""
    with Image.open(io.BytesIO(content)) as image:
        if image.format != "JPEG" or image.mode != "RGB":
            return [f"{image.format} {image.mode}"]
        pixels = np.asarray(image).astype(int)
    problems = []
    if not sides[0] <= max(pixels.shape[:2]) <= sides[1]:
        problems.append(f"size {pixels.shape}")
    red = (pixels[..., 0] > 170) & (pixels[..., 1] < 80) & (pixels[..., 2] < 80)
    if not red.any():
        return [*problems, "no red box"]
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    height, width = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    edges = red[rows[0], width], red[rows[-1], width], red[height, columns[0]], red[height, columns[-1]]
    if kind == "masked_crop" and min(edge.mean() for edge in edges) < 0.9:
        problems.append("the red box is not closed")
    outside = np.ones(red.shape, bool)
    outside[height, width] = False
    near = pixels[outside]
    if kind == "masked_crop" and len(near) and (near.max(1) > 90).mean() > 0.02:
        problems.append("the background is not black")
    return problems
