//! In which execution: what a request says of the state machine run that sent it, and how sure each fact is.

use std::{fmt, str::FromStr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How sure a fact about the execution is. The order is the order of trust.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Assurance {
    /// A header: the caller says so.
    Claimed,
    /// A claim the issuer signed but the caller chose, such as AWS request tags.
    Signed,
    /// A claim the issuer itself determined, such as a GitHub run id.
    Proven,
}

impl Assurance {
    /// The word of policy files and audit records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Signed => "signed",
            Self::Proven => "proven",
        }
    }
}

/// A value with its assurance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fact<T> {
    /// What is said.
    pub value: T,
    /// How sure it is.
    pub assurance: Assurance,
}

/// A context value that does not have the form it must have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MalformedContext {
    /// Not an execution ARN.
    #[error("not an execution ARN (arn:aws:states:REGION:ACCOUNT:execution:STATE_MACHINE:NAME)")]
    Execution,
    /// Not the id of a run.
    #[error("a run's id has 1 to 253 printable ASCII characters")]
    Run,
    /// Empty, over 80 characters, or with control characters.
    #[error("a state name has 1 to 80 printable characters")]
    State,
    /// Not a number.
    #[error("a whole number from 0 to 4294967295")]
    Number,
    /// Not an RFC 3339 time.
    #[error("not a time such as 2026-11-22T21:24:18.123Z")]
    Time,
    /// A time that is yet to come.
    #[error("a time that has not come yet: is the caller's clock right?")]
    Future,
}

/// Step Functions gives ARNs of up to 256 characters; what is twice as long is none.
const LONGEST_ARN: usize = 512;

/// An execution ARN, standard or express.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Execution(Arc<str>);

/// A state machine ARN (`…:stateMachine:NAME`).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StateMachine(String);

impl Execution {
    /// The ARN.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The state machine this is an execution of: `…:execution:NAME:RUN`, `…:express:NAME:RUN:…` and Map children
    /// (`NAME/LABEL`) all belong to `…:stateMachine:NAME`.
    pub fn state_machine(&self) -> StateMachine {
        let mut parts = self.0.split(':');
        let prefix: Vec<&str> = parts.by_ref().take(5).collect();
        let name = parts.nth(1).and_then(|name| name.split('/').next()).unwrap_or_default();
        StateMachine(format!("{}:stateMachine:{name}", prefix.join(":")))
    }
}

impl FromStr for Execution {
    type Err = MalformedContext;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split(':').collect();
        let well_formed = text.len() <= LONGEST_ARN
            && text.bytes().all(|b| b.is_ascii_graphic())
            && match parts.as_slice() {
                ["arn", partition, "states", region, account, "execution", name, run] => {
                    [partition, region, account, name, run].iter().all(|part| !part.is_empty())
                }
                ["arn", partition, "states", region, account, "express", name, run, rest @ ..] => {
                    rest.len() <= 1 && [partition, region, account, name, run].iter().all(|part| !part.is_empty())
                }
                _ => false,
            };
        if well_formed { Ok(Self(text.into())) } else { Err(MalformedContext::Execution) }
    }
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StateMachine {
    /// The ARN.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A run of something else than a state machine, by the id that its issuer gave it: a GitHub workflow run, a Kubernetes pod.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RunId(Arc<str>);

impl RunId {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunId {
    type Err = MalformedContext;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // 253: the longest name that Kubernetes gives.
        let well_formed = !text.is_empty() && text.len() <= 253 && text.bytes().all(|byte| byte.is_ascii_graphic());
        if well_formed { Ok(Self(text.into())) } else { Err(MalformedContext::Run) }
    }
}

/// The name of a state: up to 80 characters (Amazon States Language).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StateName(Arc<str>);

impl StateName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StateName {
    type Err = MalformedContext;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = !text.is_empty() && text.chars().count() <= 80 && !text.chars().any(char::is_control);
        if well_formed { Ok(Self(text.into())) } else { Err(MalformedContext::State) }
    }
}

/// `State.RetryCount`: 0 for the first try.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Attempt(pub u32);

impl FromStr for Attempt {
    type Err = MalformedContext;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| MalformedContext::Number)
    }
}

/// What a request says of its execution. Every fact may be absent; a binding may demand it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExecutionContext {
    /// `x-stepgate-execution`
    pub execution: Option<Fact<Execution>>,
    /// The workload's own run at its issuer, where that is no state machine's execution; never from a header.
    pub run: Option<Fact<RunId>>,
    /// `x-stepgate-state`
    pub state: Option<Fact<StateName>>,
    /// `x-stepgate-entered` (State.EnteredTime, RFC 3339, as sent)
    pub entered: Option<Fact<Arc<str>>>,
    /// `x-stepgate-attempt`
    pub attempt: Option<Fact<Attempt>>,
    /// `x-stepgate-redrive` (Execution.RedriveCount)
    pub redrive: Option<Fact<u32>>,
    /// `x-stepgate-item` (Map.Item.Index)
    pub item: Option<Fact<u32>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execution_belongs_to_its_state_machine() {
        let machine = "arn:aws:states:us-east-1:111122223333:stateMachine:Fulfil";
        for execution in [
            "arn:aws:states:us-east-1:111122223333:execution:Fulfil:run-1",
            "arn:aws:states:us-east-1:111122223333:express:Fulfil:run-1:5f0c",
            "arn:aws:states:us-east-1:111122223333:execution:Fulfil/Items:run-1",
        ] {
            assert_eq!(execution.parse::<Execution>().unwrap().state_machine().as_str(), machine);
        }
    }

    #[test]
    fn other_texts_are_no_execution() {
        for text in [
            "",
            "run-1",
            "arn:aws:states:us-east-1:111122223333:stateMachine:Fulfil",
            "arn:aws:states:us-east-1:111122223333:execution:Fulfil",
            "arn:aws:states:us-east-1:111122223333:execution:Fulfil:run:more",
            "arn:aws:states:us-east-1:111122223333:execution::run",
            "arn:aws:s3:us-east-1:111122223333:execution:Fulfil:run",
            "arn:aws:states:us-east-1:111122223333:execution:Ful fil:run",
        ] {
            assert_eq!(text.parse::<Execution>(), Err(MalformedContext::Execution), "{text}");
        }
    }
}
