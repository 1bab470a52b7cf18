"""An agent written with the standard library alone, as a program of its own: its task on standard
input is a task of ours, or {"do": ...} for what agents do wrong.
"""

import http.client
import json
import os
import sys
import time
from urllib.parse import urlsplit

URL, KEY = urlsplit(os.environ["OPENAI_BASE_URL"]), os.environ["OPENAI_API_KEY"]


def post(path, body):
    """The answer to a request; None where the session has ended."""
    connection = http.client.HTTPConnection(URL.hostname, URL.port, timeout=60)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    connection.request("POST", f"/v1/{path}", json.dumps(body), headers)
    answer = connection.getresponse()
    value = json.loads(answer.read())
    connection.close()
    if answer.status != 200:
        if value["error"]["code"] == "episode_ended":
            return None
        sys.exit(f"{answer.status}: {value['error']['message']}")
    return value


def look_up(arguments):
    """A tool whose result depends on its arguments alone."""
    text = json.dumps(arguments, sort_keys=True)
    return f"result {sum(map(ord, text)) % 1000}"


def refusal(name, faults):
    """What Toolhone's own loop says of a call that fits no tool; "" where it fits."""
    own = [fault.removeprefix(f"{name}: ") for fault in faults if fault.startswith(f"{name}: ")]
    if own == ["no tool of this name was on offer"]:
        return f"there is no tool {name!r}; tools: none"
    return f"{name}: {'; '.join(own[:3])}" if own else ""


def loop(messages, tools, run=look_up):
    """Ask and run calls until an answer; what cannot be read is asked for again."""
    while answer := post("chat/completions", {"messages": messages, "tools": tools}):
        message = answer["choices"][0]["message"]
        messages.append(message)
        if "advice" in message.get("toolhone", {}):
            messages.append({"role": "user", "content": message["toolhone"]["advice"]})
        elif not message.get("tool_calls"):
            return
        faults = message.get("toolhone", {}).get("calls", [])
        for call in message.get("tool_calls", ()):
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            result = refusal(name, faults) or run(json.loads(arguments))
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})


def main():
    task = json.load(sys.stdin)
    if "messages" in task:
        loop(task["messages"], task["tools"])
        return
    do, messages = task["do"], [{"role": "user", "content": task.get("say", "2+3?")}]
    if do == "crash":
        sys.exit("no such file: notes.txt")
    if do == "idle":
        return
    if do == "sleep":
        time.sleep(60)
    loop(messages, task.get("tools", []), lambda arguments: str(arguments["a"] + arguments["b"]))
    if do != "forget":
        post(f"sessions/{KEY}/reward", {"reward": {"asked": 1, "long": -0.5}})


if __name__ == "__main__":
    main()
