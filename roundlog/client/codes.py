"""The codes with which nats-server answers: errors of the JetStream API, and statuses of messages.

Knows nothing of what a caller does about them.
https://github.com/nats-io/nats-server/blob/main/server/errors.json
"""

from enum import IntEnum


class ErrorCode(IntEnum):
    """``err_code`` of a JetStream API error or of an error ack."""

    MESSAGE_NOT_FOUND = 10037
    """The stream has no message that the request describes."""
    NO_JETSTREAM_FOR_ACCOUNT = 10039
    """The account of this user has no JetStream."""
    MESSAGE_TOO_LARGE = 10054
    """The message is over the stream's own limit. It always will be."""
    STREAM_NAME_IN_USE = 10058
    """A stream of this name exists with another configuration."""
    STREAM_NOT_FOUND = 10059
    """There is no stream of this name."""
    WRONG_LAST_MSG_ID = 10070
    """The newest message of the stream does not have the id that the publish was conditional on."""
    WRONG_LAST_SEQUENCE = 10071
    """The newest message of the subject does not have the sequence that the publish was conditional on."""
    STREAM_NOT_MATCH = 10060
    """The publish named another stream than the one that has its subject. Nothing was stored."""
    WRONG_LAST_SEQUENCE_IN_PROCESS = 10164
    """The same as `WRONG_LAST_SEQUENCE`, while another message of the subject is being stored."""
    NO_JETSTREAM = 10076
    """The server runs without JetStream."""
    BATCHES_NOT_ALLOWED = 10205
    """The stream does not allow fast-ingest batches (``allow_batched``)."""
    UNKNOWN_BATCH = 10208
    """The publish is of a batch whose first publish the server has not seen, or that has ended."""


class NatsStatus(IntEnum):
    """The status in the header of a message, or ``code`` of a JetStream API error."""

    END_OF_BATCH = 204
    """A batched direct get has sent all its messages."""
    NOT_FOUND = 404
    """Nothing in the stream matches the request."""
    TOO_MANY_RESULTS = 413
    """A direct get matches more subjects than the server answers at once."""
    UNAVAILABLE = 503
    """Nothing listens on the subject, or the stream has no leader at the moment."""
