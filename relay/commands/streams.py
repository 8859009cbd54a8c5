"""Compare the streams of ingest with what is needed, for an operator who checks the state of capture."""

from backends.publish.stream_check import OTHER_STREAMS
from roundlog.client.connection import connect
from roundlog.log_errors import LogError, LogMismatch
from roundlog.log_settings import LogSettings
from roundlog.promises.stream_watch import in_words, stopped_sentence
from roundlog.stream import check_log, check_stream


async def stream_differences(settings: LogSettings) -> tuple[list[str], list[str]]:
    """Return a sentence for each stream that breaks a promise, and for each that differs without that.

    Raises:
        LogError: The streams cannot be compared.
    """
    async with connect(settings, name="status") as connection:
        differences, stopped = await check_log(connection, settings)
        found = {settings.stream: differences}
        for wanted, harmless in OTHER_STREAMS:
            found[wanted["name"]] = await check_stream(connection, wanted, harmless=harmless)
    broken = [stopped_sentence(settings.stream)] if stopped else []
    broken += [str(LogMismatch(name, one.broken)) for name, one in found.items() if one.broken]
    harmless_ones = [f"stream {name!r}: {in_words(one.harmless)}" for name, one in found.items() if one.harmless]
    return broken, harmless_ones


async def streams_in_words(settings: LogSettings) -> str:
    """Describe the same in one line, or say why it is not known."""
    try:
        broken, harmless = await stream_differences(settings)
    except LogError as error:
        return f"unknown: {error}"
    return "; ".join([*broken, *harmless]) or "as needed"
