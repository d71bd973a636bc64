"""Live streams on loopback, as a program of its own, so that tests can kill and restart it.

    python stream_server.py KIND PORT WIDTHxHEIGHT COUNT [FIRST]

KIND: "tcp" (MPEG-TS over a TCP connection), "mjpeg" (multipart JPEGs over HTTP, as cameras serve them; the second half of
the frames has half the size) or "rtsp" (MPEG-TS over RTP, interleaved). Frame n is grey, of value 40 + 2 (n % 90), n from
FIRST. After COUNT frames the connection stays open and silent. Serves one connection; prints "ready" before.
"""

import socket
import sys
import threading
import time

import av
import numpy as np

RATE = 20  # frames per second
SILENCE = 3600


def image_at(index, size):
    return np.full((size[1], size[0], 3), 40 + 2 * (index % 90), np.uint8)


def send_video(address, container_format, size, first, count):
    """Encodes frames to an address of FFmpeg in real time."""
    with av.open(address, "w", format=container_format) as container:
        stream = container.add_stream("mpeg2video", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = 5
        for index in range(first, first + count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image_at(index, size), format="rgb24")))
            time.sleep(1 / RATE)
        time.sleep(SILENCE)


def serve_tcp(port, size, first, count):
    print("ready", flush=True)
    send_video(f"tcp://127.0.0.1:{port}?listen=1", "mpegts", size, first, count)


def accept(port):
    listener = socket.create_server(("127.0.0.1", port))
    print("ready", flush=True)
    return listener.accept()[0]


def serve_mjpeg(port, size, first, count):
    import cv2

    connection = accept(port)
    connection.recv(65536)
    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=next\r\n\r\n")
    for index in range(count):
        shown = size if index < count // 2 else (size[0] // 2, size[1] // 2)
        jpeg = cv2.imencode(".jpg", image_at(first + index, shown))[1].tobytes()
        head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        connection.sendall(head.encode() + jpeg + b"\r\n")
        time.sleep(1 / RATE)
    time.sleep(SILENCE)


def serve_rtsp(port, size, first, count):
    """A server for one client (RFC 2326): RTP packets of FFmpeg go through a local UDP socket into the TCP connection."""
    packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    packets.bind(("127.0.0.1", 0))
    connection = accept(port)
    requests = connection.makefile("rb")
    description = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track1\r\n"
    while True:
        lines = []
        while (line := requests.readline().strip()) or not lines:
            lines.append(line.decode())
        method, headers = lines[0].split()[0], dict(line.split(": ", 1) for line in lines[1:])
        answer = [f"CSeq: {headers['CSeq']}", "Session: 1"]
        body = description if method == "DESCRIBE" else ""
        if method == "OPTIONS":
            answer.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        if method == "SETUP":
            answer.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
        if body:
            answer += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        connection.sendall(("RTSP/1.0 200 OK\r\n" + "\r\n".join(answer) + "\r\n\r\n" + body).encode())
        if method == "PLAY":
            break
    address = f"rtp://127.0.0.1:{packets.getsockname()[1]}"
    threading.Thread(target=send_video, args=(address, "rtp_mpegts", size, first, count), daemon=True).start()
    while True:
        packet = packets.recv(65536)
        connection.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)


if __name__ == "__main__":
    kind, port, size, count = sys.argv[1], int(sys.argv[2]), tuple(map(int, sys.argv[3].split("x"))), int(sys.argv[4])
    globals()[f"serve_{kind}"](port, size, int(sys.argv[5]) if len(sys.argv) > 5 else 0, count)
