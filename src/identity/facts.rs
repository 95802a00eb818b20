//! What a token says of the execution, by the issuer's `context` mapping.

use std::{str::FromStr, sync::Arc};

use serde_json::Value;

use super::{
    config::{ContextClaim, ContextMapping},
    error::Reason,
};
use crate::access::{
    Assurance, Attempt, Claims, Execution, ExecutionContext, Fact, MalformedContext, RunId, StateName,
};

/// The mapped facts; a fact whose claim the token lacks is absent.
///
/// What an issuer itself determines is the workload's own run there, and only by chance a state machine's: a value that is
/// no execution ARN is then the run's id. A caller's own words are held to the ARN.
pub(super) fn from_claims(claims: &Claims, mapping: &ContextMapping) -> Result<ExecutionContext, Reason> {
    let execution = mapping.execution.as_ref();
    let names_run = execution.filter(|mapped| mapped.assurance == Assurance::Proven && !is_arn(claims, mapped));
    Ok(ExecutionContext {
        execution: fact(claims, execution.filter(|_| names_run.is_none()), "execution", Execution::from_str)?,
        run: fact(claims, names_run, "run", RunId::from_str)?,
        state: fact(claims, mapping.state.as_ref(), "state", StateName::from_str)?,
        entered: fact(claims, mapping.entered.as_ref(), "entered time", time)?,
        attempt: fact(claims, mapping.attempt.as_ref(), "attempt", Attempt::from_str)?,
        redrive: fact(claims, mapping.redrive.as_ref(), "redrive count", number)?,
        item: fact(claims, mapping.item.as_ref(), "item index", number)?,
    })
}

fn fact<T>(
    claims: &Claims,
    mapped: Option<&ContextClaim>,
    what: &'static str,
    parse: impl Fn(&str) -> Result<T, MalformedContext>,
) -> Result<Option<Fact<T>>, Reason> {
    let Some((mapped, value)) = mapped.and_then(|mapped| Some((mapped, claims.get(&mapped.claim)?))) else {
        return Ok(None);
    };
    let parsed = match value {
        Value::String(text) => parse(text),
        // AWS request tags are texts, while other issuers write a count as a number.
        Value::Number(number) => parse(&number.to_string()),
        // Nothing else is a fact, and neither is the empty text.
        _ => parse(""),
    };
    parsed.map(|value| Some(Fact { value, assurance: mapped.assurance })).map_err(|malformed| Reason::MalformedFact {
        fact: what,
        claim: mapped.claim.to_string(),
        malformed,
    })
}

fn is_arn(claims: &Claims, mapped: &ContextClaim) -> bool {
    claims.text(&mapped.claim).is_some_and(|text| text.starts_with("arn:"))
}

fn number(text: &str) -> Result<u32, MalformedContext> {
    text.parse().map_err(|_| MalformedContext::Number)
}

fn time(text: &str) -> Result<Arc<str>, MalformedContext> {
    text.parse::<jiff::Timestamp>().map(|_| text.into()).map_err(|_| MalformedContext::Time)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ARN: &str = "arn:aws:states:us-east-1:111122223333:execution:Fulfil:run-1";

    fn claims(tags: Value) -> Claims {
        Claims::new([("https://sts.amazonaws.com/".to_owned(), json!({ "request_tags": tags }))].into_iter().collect())
    }

    fn tag(name: &str) -> Option<ContextClaim> {
        let claim = format!("/https:~1~1sts.amazonaws.com~1/request_tags/{name}");
        Some(ContextClaim { claim: claim.into(), assurance: Assurance::Signed })
    }

    fn mapping() -> ContextMapping {
        ContextMapping {
            execution: tag("execution"),
            state: tag("state"),
            entered: tag("entered"),
            attempt: tag("attempt"),
            redrive: tag("redrive"),
            item: tag("item"),
        }
    }

    #[test]
    fn facts_are_read_with_their_assurance() {
        let said = json!({"execution": ARN, "state": "SaveOrder", "entered": "2026-11-22T21:24:18.123Z", "attempt": "2",
            "redrive": 0, "item": 4_294_967_295_u32});
        let context = from_claims(&claims(said), &mapping()).unwrap();
        let execution = context.execution.unwrap();
        assert_eq!((execution.value.as_str(), execution.assurance), (ARN, Assurance::Signed));
        assert_eq!(context.state.unwrap().value.as_str(), "SaveOrder");
        assert_eq!(context.entered.unwrap().value.as_ref(), "2026-11-22T21:24:18.123Z");
        assert_eq!(context.attempt.unwrap().value, Attempt(2));
        assert_eq!((context.redrive.unwrap().value, context.item.unwrap().value), (0, u32::MAX));
    }

    #[test]
    fn absent_facts_and_unmapped_facts_are_absent() {
        assert_eq!(from_claims(&claims(json!({})), &mapping()), Ok(ExecutionContext::default()));
        let said = claims(json!({ "execution": ARN }));
        assert_eq!(from_claims(&said, &ContextMapping::default()), Ok(ExecutionContext::default()));
    }

    #[test]
    fn what_the_issuer_determined_is_a_run_unless_it_is_an_arn() {
        let proven = |claim: &'static str| ContextMapping {
            execution: Some(ContextClaim { claim: claim.into(), assurance: Assurance::Proven }),
            ..ContextMapping::default()
        };
        let claims = Claims::new(
            [
                ("run_id", json!("9041325187")),
                ("number", json!(9041325187_u64)),
                ("arn", json!(ARN)),
                ("odd", json!("a b")),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect(),
        );
        for claim in ["run_id", "number"] {
            let context = from_claims(&claims, &proven(claim)).unwrap();
            let run = context.run.unwrap();
            assert_eq!((run.value.as_str(), run.assurance), ("9041325187", Assurance::Proven));
            assert_eq!(context.execution, None);
        }
        let context = from_claims(&claims, &proven("arn")).unwrap();
        assert_eq!((context.execution.unwrap().value.as_str(), context.run), (ARN, None));
        assert!(matches!(from_claims(&claims, &proven("odd")), Err(Reason::MalformedFact { .. })));
    }

    #[test]
    fn malformed_facts_are_refused_by_claim() {
        for (name, value) in [
            ("execution", json!("run-1")),
            ("execution", json!(null)),
            ("state", json!("")),
            ("state", json!(["SaveOrder"])),
            ("entered", json!("yesterday")),
            ("attempt", json!(-1)),
            ("redrive", json!("many")),
            ("item", json!(1.5)),
        ] {
            let refused = from_claims(&claims(json!({ name: value })), &mapping());
            let named = matches!(&refused, Err(Reason::MalformedFact { claim, .. }) if claim.ends_with(name));
            assert!(named, "{name}: {refused:?}");
        }
    }
}
