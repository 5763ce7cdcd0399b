"""Problems of requests that never reach the application. Their HTTP statuses are in `api/errors.py`."""

from xzepr.core.errors import Problem


class HeadTooLarge(Problem):
    """The head of the request has too many headers or too many bytes."""

    code = "HEAD_TOO_LARGE"

    def __init__(self) -> None:
        super().__init__("the head of the request has too many headers or is too long")


class UriTooLong(Problem):
    """The address of the request is too long."""

    code = "URI_TOO_LONG"

    def __init__(self) -> None:
        super().__init__("the address of the request is too long: send the operation in a body")


class UnknownTransferCoding(Problem):
    """The body is encoded by more than chunks."""

    code = "UNKNOWN_TRANSFER_CODING"

    def __init__(self) -> None:
        super().__init__("the only Transfer-Encoding that the hub decodes is chunked")
