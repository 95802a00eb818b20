//! The question that policy answers.

use super::{Action, Claims, ContainerName, ExecutionContext, PartitionKey, Subject};

/// Who, in which execution, wants to do what to which data. Plain values, so that `explain`, policy tests and `who-can`
/// ask the same evaluator hypothetical questions.
#[derive(Clone, Debug)]
pub struct AccessRequest<'a> {
    /// Who.
    pub subject: &'a Subject,
    /// The OAuth client, where the issuer names one.
    pub client: Option<&'a str>,
    /// What the issuer says of the subject.
    pub claims: &'a Claims,
    /// In which execution.
    pub context: &'a ExecutionContext,
    /// To do what.
    pub action: Action,
    /// In which container.
    pub container: &'a ContainerName,
    /// In which partition; `None` when the request names none.
    pub partition_key: Option<&'a PartitionKey>,
}
