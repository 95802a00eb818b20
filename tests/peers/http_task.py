"""HTTP Tasks for moto's Step Functions interpreter, which runs the language but not `http:invoke`.

One connection stands in for every ConnectionArn: OAuth client credentials, sent as a form, as EventBridge sends them; or an
API key, beside which a workflow sends a token of its own, minted by `sts:getWebIdentityToken`. What a state sees is what AWS
documents: `States.Http.StatusCode.NNN` with the status text alone outside 2xx, and nothing of the answer's body; what is
over 256 KiB is `States.DataLimitExceeded`, which `States.ALL` does not match. `https://gateway.invalid` in a definition is
the gateway of the run.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import urllib.parse
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import boto3
import jsonata

REGION, ACCOUNT = "us-east-1", "111122223333"
# Moto reads it when it is imported.
os.environ["MOTO_ACCOUNT_ID"] = ACCOUNT

from moto import mock_aws
from moto.stepfunctions.parser.api import HistoryEventType
from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import CustomErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.error_equals_decl import ErrorEqualsDecl
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent, FailureEventException
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.string.string_expression import StringJSONata
from moto.stepfunctions.parser.asl.component.state.exec.state_task import state_task_factory
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service import StateTaskService
from moto.stepfunctions.parser.asl.eval import states, variable_store
from moto.stepfunctions.parser.asl.jsonata import jsonata as moto_jsonata

import peers

# It writes down every failure of a state, which here is mostly what was wanted.
logging.getLogger("moto").setLevel(logging.CRITICAL)

PLACEHOLDER = "https://gateway.invalid"
# What a state's input or output may hold (Step Functions quotas), in bytes of UTF-8.
LIMIT = 262_144
# Headers that a definition may not use (`call-https-apis` in the developer guide).
RESERVED = frozenset(
    """a-im accept-charset accept-datetime accept-encoding authorization cache-control connection content-encoding
    content-md5 date expect forwarded from host http2-settings if-match if-modified-since if-none-match if-range
    if-unmodified-since max-forwards origin pragma proxy-authorization referer server te trailer transfer-encoding upgrade
    via warning""".split()
)


class TaskError(Exception):
    """What a state sees of a failure: the name for ErrorEquals, and the cause."""


class Connection:
    """An EventBridge connection of a gateway."""

    def __init__(self, gateway: str) -> None:
        self.gateway = gateway

    def credential(self) -> dict[str, str]:
        """The headers that it adds."""
        raise NotImplementedError

    def refused(self) -> None:
        """What it does about a 401."""

    def invoke(self, task: dict[str, Any]) -> peers.Answer:
        """Sends what a state's parameters ask for."""
        url = task["ApiEndpoint"].replace(PLACEHOLDER, self.gateway.rstrip("/"), 1)
        if query := task.get("QueryParameters"):
            url += "?" + urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
        for name, value in task.get("Headers", {}).items():
            if name.lower() in RESERVED or name.lower().startswith(("x-forwarded-", "x-amz-", "x-amzn-")):
                raise TaskError("States.Runtime", f"The Headers field contains an unsupported header: {name}")
            if not isinstance(value, str):
                raise TaskError("States.Runtime", f"The header {name} must be a string")
        if len(json.dumps(task.get("RequestBody"), ensure_ascii=False).encode()) > LIMIT:
            raise TaskError("States.DataLimitExceeded", "The request body is too large")
        headers = {
            "content-type": "application/json; charset=UTF-8",
            **task.get("Headers", {}),
            **self.credential(),
            "user-agent": f"Amazon|StepFunctions|HttpInvoke|{REGION}",
            "range": "bytes=0-262144",
        }
        answer = peers.ask(task["Method"], url, task.get("RequestBody"), headers)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            self.refused()
        return answer


class OAuth(Connection):
    """Client credentials: the token is fetched when it is wanted, and anew after a 401."""

    def __init__(self, gateway: str, token_endpoint: str, client: str = "worker") -> None:
        super().__init__(gateway)
        self.token_endpoint, self.client = token_endpoint, client
        self.lock = threading.Lock()
        self.token: str | None = None

    def credential(self) -> dict[str, str]:
        with self.lock:
            if self.token is None:
                self.token = peers.token(self.token_endpoint, self.client)
            return {"authorization": f"Bearer {self.token}"}

    def refused(self) -> None:
        with self.lock:
            self.token = None


class ApiKey(Connection):
    """An API key that means nothing to the gateway: every HTTP Task must have a connection."""

    def credential(self) -> dict[str, str]:
        return {"x-api-key": "unused"}


# What `sts:getWebIdentityToken` answers to its parameters.
Sts = Callable[[dict[str, Any]], dict[str, Any]]


class _Current:
    """What the run at hand uses."""

    connection: Connection | None = None
    sts: Sts | None = None
    installed = False


def install(connection: Connection, sts: Sts | None = None) -> None:
    """Teaches moto's interpreter `http:invoke`, and the error names that come with it; from now on with this connection."""
    _Current.connection, _Current.sts = connection, sts
    if _Current.installed:
        return
    _Current.installed = True
    factory, custom_name = state_task_factory.state_task_service_for, CustomErrorName.__init__
    equals, of_string = ErrorEqualsDecl._eval_body, StringJSONata._eval_body

    def service(service_name: str) -> StateTaskService:
        of_own = {"http": HttpTask, "aws-sdk": TokenTask}.get(service_name)
        return of_own() if of_own else factory(service_name)

    def name_error(self: CustomErrorName, error_name: str) -> None:
        if error_name.startswith("States.Http."):
            super(CustomErrorName, self).__init__(error_name=error_name)
        else:
            custom_name(self, error_name)

    def matches(self: ErrorEqualsDecl, env: Any) -> None:
        past_all = env.stack[-1].error_name in ("States.Runtime", "States.DataLimitExceeded")
        equals(self, env)
        if past_all and any(name.error_name == "States.ALL" for name in self.error_names):
            env.stack[-1] = False

    def evaluated(self: StringJSONata, env: Any) -> None:
        try:
            of_string(self, env)
        except jsonata.JException as error:
            raise failure(env, "States.QueryEvaluationError", str(error)) from error

    def declared(bindings: dict[str, Any]) -> str:
        # Moto's own leaves quotes inside strings as they are.
        return "".join(f"{name}:={json.dumps(value, default=str)};" for name, value in bindings.items())

    CustomErrorName.__init__, ErrorEqualsDecl._eval_body = name_error, matches
    StringJSONata._eval_body = evaluated
    states.encode_jsonata_variable_declarations = variable_store.encode_jsonata_variable_declarations = declared
    moto_jsonata._eval_jsonata = lambda expression: jsonata.Jsonata(expression).evaluate(None)
    state_task_factory.state_task_service_for = service


class OwnTask(StateTaskService):
    """A service that moto does not have."""

    def _get_supported_parameters(self) -> set[str]:
        return set()

    def answer(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The result of the task."""
        raise NotImplementedError

    def _eval_service_task(self, env: Any, normalised_parameters: dict[str, Any], **_: Any) -> None:
        try:
            result = self.answer(normalised_parameters)
        except TaskError as error:
            raise failure(env, *error.args) from error
        env.stack.append(result)


class HttpTask(OwnTask):
    """`http:invoke`."""

    def answer(self, parameters: dict[str, Any]) -> dict[str, Any]:
        assert _Current.connection
        answer = _Current.connection.invoke(parameters)
        phrase = HTTPStatus(answer.status).phrase if answer.status in set(HTTPStatus) else ""
        if not 200 <= answer.status < 300:
            raise TaskError(f"States.Http.StatusCode.{answer.status}", phrase)
        headers = {name.lower(): [value] for name, value in answer.headers.items()}
        result = {"Headers": headers, "StatusCode": answer.status, "StatusText": phrase}
        result |= {"ResponseBody": answer.body} if answer.body != "" else {}
        # Moto looks again, at the JSON that it writes itself.
        if len(json.dumps(result, ensure_ascii=False, separators=(",", ":")).encode()) > LIMIT:
            raise TaskError("States.DataLimitExceeded", "The result of the task is too large")
        return result


class TokenTask(OwnTask):
    """`aws-sdk:sts:getWebIdentityToken`."""

    def answer(self, parameters: dict[str, Any]) -> dict[str, Any]:
        action = self.resource.api_name, self.resource.api_action
        if _Current.sts is None or action != ("sts", "getWebIdentityToken"):
            raise TaskError("States.Runtime", f"{action} is not served here")
        return _Current.sts(parameters)


def failure(env: Any, error: str, cause: str) -> FailureEventException:
    """The interpreter's own exception."""
    details = {"error": error, "cause": cause, "resource": "invoke", "resourceType": "http"}
    event = FailureEvent(
        env=env,
        error_name=StatesErrorName.from_name(error) if error.count(".") == 1 else CustomErrorName(error),
        event_type=HistoryEventType.TaskFailed,
        event_details={"taskFailedEventDetails": details},
    )
    return FailureEventException(event)


def execute(definition: dict[str, Any], name: str, given: Any) -> dict[str, Any]:
    """Runs a state machine to its end, and gives what DescribeExecution says of it."""
    (seen,) = execute_all(definition, {name: given})
    return seen


@mock_aws(config={"stepfunctions": {"execute_state_machine": True}})
def execute_all(definition: dict[str, Any], given: dict[str, Any], machine: str = "Order") -> list[dict[str, Any]]:
    """Runs executions of a state machine, by name and input, at the same time, each to its end."""
    client = boto3.client("stepfunctions", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    role = f"arn:aws:iam::{ACCOUNT}:role/workflow"
    arn = client.create_state_machine(name=machine, definition=json.dumps(definition), roleArn=role)["stateMachineArn"]
    started = [
        client.start_execution(stateMachineArn=arn, name=name, input=json.dumps(of_one))["executionArn"]
        for name, of_one in given.items()
    ]
    deadline = time.monotonic() + peers.PATIENCE * 2
    ended = []
    for execution in started:
        while (seen := client.describe_execution(executionArn=execution))["status"] == "RUNNING":
            peers.expect_that(time.monotonic() < deadline, "the execution ends")
            # The interpreter has no way to be waited for.
            time.sleep(0.05)
        ended.append(seen)
    return ended
