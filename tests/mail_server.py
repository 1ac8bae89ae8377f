"""A real SMTP server for tests: aiosmtpd, on a free port, which keeps each mail as a file.

    mail_server.py FOLDER [PORT]

It prints its port. The file FOLDER/mode says what it does with a mail: `accept` (as without the file), `refuse` (for good),
`defer` (try again), `drop` (keeps the mail, and closes the connection instead of answering), or `stall` (never answers).
The mails are FOLDER/1.eml, FOLDER/2.eml, and so on.
"""

import asyncio
import itertools
import pathlib
import sys

from aiosmtpd.smtp import SMTP

folder = pathlib.Path(sys.argv[1])
port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
numbers = itertools.count(1)


def mode():
    try:
        return (folder / "mode").read_text().strip()
    except FileNotFoundError:
        return "accept"


def keep(envelope):
    number = next(numbers)
    part = folder / f"{number}.part"
    part.write_bytes(envelope.original_content)
    part.rename(folder / f"{number}.eml")


class Mailbox:
    async def handle_DATA(self, server, session, envelope):
        match mode():
            case "refuse":
                return f"550 5.1.1 <{envelope.rcpt_tos[0]}>: This mail is not wanted"
            case "defer":
                return "451 4.3.0 Try again later"
            case "stall":
                (folder / "stalled").touch()
                await asyncio.sleep(3600)
            case "drop":
                keep(envelope)
                server.transport.abort()
                return "250 This is never sent"
        keep(envelope)
        return "250 OK"


async def serve():
    loop = asyncio.get_running_loop()
    make = lambda: SMTP(Mailbox(), enable_SMTPUTF8=True, loop=loop)
    server = await loop.create_server(make, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(serve())
