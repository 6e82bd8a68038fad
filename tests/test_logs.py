"""What is written to stderr: our own lines, those of libraries and crashes, without secrets and addresses."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "sk" + "aB3xY9" * 30
PREPARE = """
import asyncio, logging, sys, warnings
from sync_worker.logs import configure_logs
import structlog
log = structlog.get_logger()
"""


def written(code: str, form: str = "json", secrets: tuple[str, ...] = ()) -> list[str]:
    """Return the lines that a process writes to stderr when it runs `code`; nothing may be on stdout."""
    program = f"{PREPARE}configure_logs({form!r}, {secrets!r})\n{code}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == ""
    return ended.stderr.splitlines()


def line(code: str, **given: object) -> dict[str, object]:
    (only,) = written(code, **given)  # type: ignore[arg-type]
    read: dict[str, object] = json.loads(only)
    return read


def test_a_line_of_json_has_event_level_and_time() -> None:
    entry = line("log.info('access_changed', subject='user:user_1', bytes=3, parts=None)")
    assert entry.pop("timestamp")
    assert entry == {"event": "access_changed", "level": "info", "subject": "user:user_1", "bytes": 3, "parts": None}


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_is_one_write_so_that_two_processes_on_one_stream_do_not_mix(form: str) -> None:
    code = f"""
class Writes:
    def write(self, text):
        texts.append(text)
    def flush(self):
        pass
    def isatty(self):
        return False
texts, sys.stderr = [], Writes()
configure_logs({form!r})
structlog.get_logger().info('access_changed')
sys.stderr = sys.__stderr__
print(len(texts), texts[0].endswith(chr(10)), file=sys.stderr)
"""
    assert written(code, form) == ["1 True"]


@pytest.mark.parametrize(
    "values",
    [
        "detail='ada@example.com'",
        "keys=['email:ada@example.com']",
        "keys=('ada@example.com',)",
        "given={'ada@example.com': 1}",
        "given={'to': [{'address': 'ada@example.com'}]}",
        "error=ValueError('ada@example.com')",
        "path=__import__('pathlib').Path('ada@example.com')",
        "found={'ada@example.com'}",
        "raw=b'ada@example.com'",
    ],
)
@pytest.mark.parametrize("form", ["json", "console"])
def test_no_address_is_written_anywhere_in_a_line(values: str, form: str) -> None:
    (entry,) = written(f"log.info('something_happened', {values})", form)
    assert "[e-mail]" in entry
    assert "ada" not in entry


@pytest.mark.parametrize("secret", ["sk_live_aB3", "sk_test_aB3", "whsec_aB3=", f"Bearer {TOKEN}", TOKEN])
def test_no_secret_is_written(secret: str) -> None:
    entry = line(f"log.error('something_failed', detail='it was {secret} as it seems')")
    assert "[secret] as it seems" in str(entry["detail"])
    assert secret not in str(entry)


def test_the_secrets_of_the_settings_are_redacted_whatever_they_look_like() -> None:
    entry = line("log.info('it', secret_is='plain text, short')", secrets=("plain text", "short"))
    assert entry["secret_is"] == "[secret], short"  # five characters would be found in words


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_is_redacted_and_shows_no_variables(form: str) -> None:
    code = f"""
def fail(key):
    raise RuntimeError("refused: Bearer {TOKEN}, ada@example.com")
try:
    fail("whsec_aB3")
except RuntimeError:
    log.exception('run_crashed')
"""
    entry = "\n".join(written(code, form))
    assert "refused: Bearer [secret] [e-mail]" in entry
    assert "in fail" in entry
    assert [found for found in ("ada", "whsec_aB3", TOKEN) if found in entry] == []


def test_a_warning_logged_by_a_library_is_forwarded() -> None:
    entry = line("logging.getLogger('uvicorn.error').warning('no route to %s', 'ada@example.com')")
    assert (entry["event"], entry["level"], entry["library"]) == ("library_warned", "warning", "uvicorn.error")
    assert entry["message"] == "no route to [e-mail]"


def test_other_messages_of_libraries_are_not_written() -> None:
    assert written("logging.getLogger('httpx').info('GET https://x/?email=ada@example.com')") == []


def test_the_error_of_a_task_that_was_never_awaited_is_logged_with_its_traceback() -> None:
    code = """
async def main():
    async def fail():
        raise ValueError("ada@example.com")
    asyncio.create_task(fail())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
asyncio.run(main())
"""
    entry = line(code)
    assert (entry["event"], entry["level"], entry["library"]) == ("library_warned", "error", "asyncio")
    assert "ValueError: [e-mail]" in str(entry["exception"])


def test_a_warning_of_python_is_forwarded() -> None:
    entry = line("warnings.warn('ada@example.com', stacklevel=1)")
    assert (entry["event"], entry["library"]) == ("library_warned", "py.warnings")
    assert "ada" not in str(entry)


@pytest.mark.parametrize("prepared", [True, False])
def test_a_crash_of_the_command_line_is_logged_redacted(tmp_path: Path, *, prepared: bool) -> None:
    code = f"""
import sys
from sync_worker import cli
from sync_worker.logs import configure_logs
def crash():
    if {prepared}: configure_logs("json")
    raise RuntimeError("sk_live_aB3 of ada@example.com")
cli.app.command()(crash)
sys.argv = ["sync-worker", "crash"]
cli.main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    entry = json.loads(ended.stderr)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert (entry["event"], entry["level"]) == ("crashed", "critical")
    assert "RuntimeError: [secret] of [e-mail]" in entry["exception"]
    assert "ada@" not in ended.stderr


def test_no_control_character_reaches_a_console() -> None:
    (only,) = written("log.info('row_refused', field='\\x1b[2J\\x9b', more=['\\x07'])", form="console")
    assert r"\u001b[2J\u009b" in only
    assert not {"\x1b[2J", "\x9b", "\x07"} & {only[n : n + size] for n in range(len(only)) for size in (1, 4)}
