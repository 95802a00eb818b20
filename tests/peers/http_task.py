"""HTTP Tasks for moto's Step Functions interpreter, which runs the language but not `http:invoke`.

One connection stands in for every ConnectionArn: OAuth client credentials, sent as a form, as EventBridge sends them.
What a state sees is what AWS documents: `States.Http.StatusCode.NNN` with the status text alone outside 2xx, and nothing
of the answer's body. `https://gateway.invalid` in a definition is the gateway of the run.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.parse
from http import HTTPStatus
from typing import Any

import boto3
from moto import mock_aws
from moto.stepfunctions.parser.api import HistoryEventType
from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import CustomErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent, FailureEventException
from moto.stepfunctions.parser.asl.component.state.exec.state_task import state_task_factory
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service import StateTaskService

import peers

REGION, ACCOUNT = "us-east-1", "111122223333"
PLACEHOLDER = "https://gateway.invalid"


class Connection:
    """An OAuth connection: the token is fetched when it is wanted, and anew after a 401."""

    def __init__(self, gateway: str, token_endpoint: str) -> None:
        self.gateway, self.token_endpoint = gateway, token_endpoint
        self.lock = threading.Lock()
        self.token: str | None = None

    def authorization(self) -> str:
        """The value of the header."""
        with self.lock:
            if self.token is None:
                self.token = peers.token(self.token_endpoint)
            return f"Bearer {self.token}"

    def invoke(self, task: dict[str, Any]) -> peers.Answer:
        """Sends what a state's parameters ask for."""
        url = task["ApiEndpoint"].replace(PLACEHOLDER, self.gateway.rstrip("/"), 1)
        if query := task.get("QueryParameters"):
            url += "?" + urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
        headers = {
            "content-type": "application/json; charset=UTF-8",
            **task.get("Headers", {}),
            "authorization": self.authorization(),
            "user-agent": f"Amazon|StepFunctions|HttpInvoke|{REGION}",
            "range": "bytes=0-262144",
        }
        answer = peers.ask(task["Method"], url, task.get("RequestBody"), headers)
        if answer.status == HTTPStatus.UNAUTHORIZED:
            with self.lock:
                self.token = None
        return answer


def install(connection: Connection) -> None:
    """Teaches moto's interpreter `http:invoke`, and the error names that come with it."""

    class HttpTask(StateTaskService):
        """The state's own part: parameters in, result or failure out."""

        def _get_supported_parameters(self) -> set[str]:
            return set()

        def _eval_service_task(self, env: Any, normalised_parameters: dict[str, Any], **_: Any) -> None:
            answer = connection.invoke(normalised_parameters)
            phrase = HTTPStatus(answer.status).phrase if answer.status in set(HTTPStatus) else ""
            if not 200 <= answer.status < 300:
                raise failure(env, f"States.Http.StatusCode.{answer.status}", phrase)
            headers = {name.lower(): [value] for name, value in answer.headers.items()}
            result = {"Headers": headers, "StatusCode": answer.status, "StatusText": phrase}
            env.stack.append(result | ({"ResponseBody": answer.body} if answer.body != "" else {}))

    factory, custom_name = state_task_factory.state_task_service_for, CustomErrorName.__init__

    def service(service_name: str) -> StateTaskService:
        return HttpTask() if service_name == "http" else factory(service_name)

    def name_error(self: CustomErrorName, error_name: str) -> None:
        if error_name.startswith("States.Http."):
            super(CustomErrorName, self).__init__(error_name=error_name)
        else:
            custom_name(self, error_name)

    CustomErrorName.__init__ = name_error
    state_task_factory.state_task_service_for = service


def failure(env: Any, error: str, cause: str) -> FailureEventException:
    """The interpreter's own exception."""
    details = {"error": error, "cause": cause, "resource": "invoke", "resourceType": "http"}
    event = FailureEvent(
        env=env,
        error_name=CustomErrorName(error),
        event_type=HistoryEventType.TaskFailed,
        event_details={"taskFailedEventDetails": details},
    )
    return FailureEventException(event)


@mock_aws(config={"stepfunctions": {"execute_state_machine": True}})
def execute(definition: dict[str, Any], name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Runs a state machine to its end, and gives what DescribeExecution says of it."""
    client = boto3.client("stepfunctions", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    role = f"arn:aws:iam::{ACCOUNT}:role/workflow"
    machine = client.create_state_machine(name="Order", definition=json.dumps(definition), roleArn=role)
    started = client.start_execution(stateMachineArn=machine["stateMachineArn"], name=name, input=json.dumps(given))
    deadline = time.monotonic() + peers.PATIENCE
    while (seen := client.describe_execution(executionArn=started["executionArn"]))["status"] == "RUNNING":
        peers.expect_that(time.monotonic() < deadline, "the execution ends")
        # The interpreter has no way to be waited for.
        time.sleep(0.05)
    return seen
