"""A real HTTP server in the place of a judge: what it is asked is recorded, what it replies is the test's to say."""

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Status:
    """A reply that is not a chat completion; status 0 hangs up without one."""

    status: int
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Served:
    url: str
    requests: list = field(default_factory=list)  # (path, headers, body), in the order of arrival
    at_once: int = 0
    most_at_once: int = 0

    def questions(self):
        """What the user's message of each request asks, as (system message, question)."""
        messages = [body["messages"] for _, _, body in self.requests]
        return [(system["content"], json.loads(user["content"])) for system, user in messages]

    def knobs(self, **knobs):
        """Knobs of a reward that asks this server, patient for milliseconds and without a cache."""
        return {"url": self.url, "model": "judge", "backoff": 0.001, "cache": None} | knobs


@contextmanager
def serving(reply):
    """A server on a free port. `reply(question)` gives what the judge writes, or a Status."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                served.requests.append((self.path, dict(self.headers), body))
                served.at_once += 1
                served.most_at_once = max(served.most_at_once, served.at_once)
            try:
                said = reply(json.loads(body["messages"][1]["content"]))
            finally:
                with lock:
                    served.at_once -= 1
            if isinstance(said, str) or said is None:
                said = Status(200, json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]}))
            if said.status == 0:
                self.close_connection = True
                return
            payload = said.body.encode()
            self.send_response(said.status)
            for name, value in {**said.headers, "Content-Length": str(len(payload))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_):
            """Nothing is printed."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_):
            """A client that no longer waits is part of what is tested."""

    server = Server(("127.0.0.1", 0), Handler)
    served = Served(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


def by_words(question):
    """A judge whose events are a caption's sentences, conveyed by a description that has them word for word."""
    if "caption" in question:
        return json.dumps({"events": [part.strip() for part in question["caption"].split(".") if part.strip()]})
    verdicts = {number: event in question["description"] for number, event in question["events"].items()}
    return json.dumps(verdicts)


def by_chance(question):
    """A judge that replies in order and always the same, whatever it is about."""
    if "caption" in question:
        return json.dumps({"events": ["it begins", "it ends"]})
    digest = hashlib.sha256(json.dumps(question).encode()).digest()
    return json.dumps({number: digest[int(number)] % 2 == 0 for number in question["events"]})
