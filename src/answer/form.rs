//! In which form the caller wants to hear what went wrong.

use http::{HeaderMap, HeaderName, header::USER_AGENT};

/// `x-stepgate-errors`: the form by name.
const ERRORS: HeaderName = HeaderName::from_static("x-stepgate-errors");

/// The form of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// One status per condition, for a workflow that can only catch `States.Http.StatusCode.NNN`.
    Distinct,
    /// What Cosmos would have sent, for Cosmos clients.
    Cosmos,
    /// 200 with the whole answer inside, for a workflow that branches on the detail.
    Envelope,
}

impl Form {
    /// The form that `x-stepgate-errors` names, else the one that fits the `User-Agent`. `None` when the header is there
    /// and names no form.
    pub fn wanted(headers: &HeaderMap) -> Option<Self> {
        let mut named = headers.get_all(ERRORS).iter();
        match (named.next().map(|value| value.as_bytes()), named.next()) {
            (None, _) => Some(Self::of_user_agent(headers)),
            (Some(b"distinct"), None) => Some(Self::Distinct),
            (Some(b"cosmos"), None) => Some(Self::Cosmos),
            (Some(b"envelope"), None) => Some(Self::Envelope),
            _ => None,
        }
    }

    /// The form of callers that ask for none.
    pub fn of_user_agent(headers: &HeaderMap) -> Self {
        if is_http_task(headers) { Self::Distinct } else { Self::Cosmos }
    }

    /// Whether the caller is a workflow: then an answer must fit into a state.
    pub fn is_workflow(self) -> bool {
        matches!(self, Self::Distinct | Self::Envelope)
    }
}

/// Whether Step Functions sent the request, by the `User-Agent` that every HTTP Task has.
pub fn is_http_task(headers: &HeaderMap) -> bool {
    headers.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"Amazon|StepFunctions|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_wins_over_the_user_agent() {
        let form = |list: &[(&'static str, &'static str)]| {
            let headers: HeaderMap = list.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
            Form::wanted(&headers)
        };
        let task = ("user-agent", "Amazon|StepFunctions|HttpInvoke|eu-west-1");
        assert_eq!(form(&[]), Some(Form::Cosmos));
        assert_eq!(form(&[task]), Some(Form::Distinct));
        assert_eq!(form(&[task, ("x-stepgate-errors", "cosmos")]), Some(Form::Cosmos));
        assert_eq!(form(&[("x-stepgate-errors", "envelope")]), Some(Form::Envelope));
        assert_eq!(form(&[("x-stepgate-errors", "loud")]), None);
    }
}
