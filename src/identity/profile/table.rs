//! The profiles, one table each, from the issuers' own documentation.
//!
//! A row is a claim and what it must be. `human` rows refuse, any one of them; `workload` rows prove, all of them. What is
//! missing here is refused, so a row that is too strict costs a workflow its access until it is mended, and a row that is
//! too lax would let a person in: where the documentation leaves a doubt, the stricter reading stands.

use std::borrow::Cow;

use super::{
    super::config::{Algorithm, ContextClaim, ContextMapping},
    sign::{Part, Sign, Test},
};
use crate::access::{Assurance, WorkloadKind};

/// What a kind of issuer writes into its tokens.
#[derive(Debug)]
pub(in crate::identity) struct Profile {
    /// Any one of these shows a person.
    pub(super) human: &'static [Sign],
    /// All of these together prove a workload.
    pub(super) workload: &'static [Sign],
    /// The claims that may name the OAuth client; the first that is there does.
    pub(super) client: &'static [&'static str],
    /// What it signs with.
    pub(in crate::identity) algorithms: &'static [Algorithm],
    /// Whether its tokens have an `aud` only on request, so that the client may stand in for it.
    pub(in crate::identity) client_for_audience: bool,
    /// Whether strangers get tokens of the same issuer.
    pub(in crate::identity) shared: bool,
    /// What it says of the execution, unless the configuration says otherwise.
    pub(in crate::identity) context: ContextMapping,
}

impl Profile {
    /// The profile of that kind.
    pub(in crate::identity) fn of(kind: WorkloadKind) -> &'static Self {
        match kind {
            WorkloadKind::Oidc => &OIDC,
            WorkloadKind::Cognito => &COGNITO,
            WorkloadKind::Entra => &ENTRA,
            WorkloadKind::Auth0 => &AUTH0,
            WorkloadKind::Okta => &OKTA,
            WorkloadKind::Keycloak => &KEYCLOAK,
            WorkloadKind::AwsSts => &AWS_STS,
            WorkloadKind::Kubernetes => &KUBERNETES,
            WorkloadKind::Github => &GITHUB,
        }
    }
}

/// Explicit rules: they stand in the configuration, and without any nothing is proven.
static OIDC: Profile = Profile {
    human: &[],
    workload: &[],
    client: &["client_id", "azp"],
    algorithms: &Algorithm::ALL,
    client_for_audience: false,
    shared: false,
    context: silent(),
};

/// Amazon Cognito user pools, client credentials. Such a token has neither a user nor a sign-in to tell of, and custom
/// scopes only.
/// <https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-access-token.html>
static COGNITO: Profile = Profile {
    human: &[
        Sign::present("username"),
        Sign::present("cognito:username"),
        Sign::present("cognito:groups"),
        Sign::present("origin_jti"),
        Sign::words("scope", &["openid", "aws.cognito.signin.user.admin", "profile", "email", "phone"]),
    ],
    workload: &[Sign::is("token_use", "access"), Sign::present("client_id")],
    client: &["client_id"],
    algorithms: &[Algorithm::RS256],
    client_for_audience: true,
    shared: false,
    context: silent(),
};

/// Microsoft Entra ID, v1 and v2 tokens. `idtyp` is an optional claim that the API must ask for; without it an application
/// is only guessed at by what is missing, which proves nothing.
/// <https://learn.microsoft.com/en-us/entra/identity-platform/access-token-claims-reference>
/// <https://learn.microsoft.com/en-us/entra/identity-platform/optional-claims-reference>
static ENTRA: Profile = Profile {
    human: &[
        // Delegated permissions: a token on behalf of a user, whoever presents it.
        Sign::present("scp"),
        Sign::is("idtyp", "user"),
        Sign::present("preferred_username"),
        Sign::present("upn"),
        Sign::present("unique_name"),
        Sign::present("name"),
        Sign::present("email"),
    ],
    workload: &[Sign::is("idtyp", "app")],
    // v2 tokens have `azp`, v1 tokens `appid`.
    client: &["azp", "appid"],
    algorithms: &[Algorithm::RS256],
    client_for_audience: false,
    shared: false,
    context: silent(),
};

/// Auth0, client credentials: the subject is made of the client.
/// <https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles>
static AUTH0: Profile = Profile {
    human: &[
        Sign::words("scope", &["openid", "profile", "email", "offline_access"]),
        Sign::present("email"),
        Sign::present("nickname"),
        Sign::present("sid"),
    ],
    workload: &[
        Sign::is("gty", "client-credentials"),
        Sign::joined("sub", &[Part::Claim("azp"), Part::Text("@clients")]),
    ],
    client: &["azp"],
    algorithms: &[Algorithm::RS256, Algorithm::PS256],
    client_for_audience: false,
    shared: false,
    context: silent(),
};

/// Okta custom authorization servers, client credentials: the subject is the client, and there is no user.
/// <https://developer.okta.com/docs/api/openapi/okta-oauth/guides/overview/#access-token>
static OKTA: Profile = Profile {
    human: &[Sign::present("uid"), Sign::words("scp", &["openid", "profile", "email", "offline_access"])],
    workload: &[Sign::present("cid"), Sign::joined("sub", &[Part::Claim("cid")])],
    client: &["cid"],
    algorithms: &[Algorithm::RS256],
    client_for_audience: false,
    shared: false,
    context: silent(),
};

/// Keycloak service accounts. Their user is named after the client, in lower case as every user name there, and has no
/// session; a person who registered under such a name has one.
/// <https://www.keycloak.org/docs/latest/server_admin/#_service_accounts>
static KEYCLOAK: Profile = Profile {
    human: &[
        Sign::present("sid"),
        Sign::present("session_state"),
        Sign::words("scope", &["offline_access"]),
        Sign::present("name"),
        Sign::present("given_name"),
        Sign::present("family_name"),
    ],
    workload: &[Sign::joined("preferred_username", &[Part::Text("service-account-"), Part::Lower("azp")])],
    client: &["azp"],
    algorithms: &[
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ],
    client_for_audience: false,
    shared: false,
    context: silent(),
};

/// Where AWS STS puts what it knows of the session.
macro_rules! aws {
    ($name:literal) => {
        concat!("/https:~1~1sts.amazonaws.com~1", $name)
    };
}

/// AWS outbound identity federation (`sts:GetWebIdentityToken`): the role of the caller. IAM Identity Center and federated
/// sign-ins put a person behind a role, and say so. Request tags are the caller's own words, signed.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_outbound_token_claims.html>
static AWS_STS: Profile = Profile {
    human: &[
        Sign::present(aws!("/identity_store_user_id")),
        Sign::present(aws!("/identity_store_arn")),
        Sign::present(aws!("/federated_provider")),
        Sign { claim: "sub", test: Test::Form(is_sso_role, "a role of IAM Identity Center") },
        Sign { claim: "sub", test: Test::Form(is_iam_user, "an IAM user") },
    ],
    workload: &[
        Sign { claim: aws!(""), test: Test::Members("the session that AWS STS describes") },
        Sign { claim: "sub", test: Test::Form(is_role, "the ARN of an IAM role (arn:aws:iam::ACCOUNT:role/NAME)") },
    ],
    client: &[],
    // The documented two; the RSA key is published without an `alg`.
    algorithms: &[Algorithm::RS256, Algorithm::ES384],
    client_for_audience: false,
    shared: false,
    context: ContextMapping {
        execution: tag(aws!("/request_tags/execution")),
        state: tag(aws!("/request_tags/state")),
        entered: tag(aws!("/request_tags/entered")),
        attempt: tag(aws!("/request_tags/attempt")),
        redrive: tag(aws!("/request_tags/redrive")),
        item: tag(aws!("/request_tags/item")),
    },
};

/// Kubernetes service accounts: EKS IRSA, EKS Pod Identity and tokens projected for this gateway. The subject repeats the
/// object that the API server signed beside it. No person gets such a token from the API server; that a person with
/// access to the cluster can ask for one is the cluster's to forbid.
/// <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens>
static KUBERNETES: Profile = Profile {
    human: &[],
    workload: &[
        Sign::present("/kubernetes.io/serviceaccount/uid"),
        Sign::joined(
            "sub",
            &[
                Part::Text("system:serviceaccount:"),
                Part::Claim("/kubernetes.io/namespace"),
                Part::Text(":"),
                Part::Claim("/kubernetes.io/serviceaccount/name"),
            ],
        ),
    ],
    client: &[],
    algorithms: &[Algorithm::RS256, Algorithm::ES256, Algorithm::ES384],
    client_for_audience: false,
    shared: false,
    context: run("/kubernetes.io/pod/name"),
};

/// GitHub Actions: every token is a workflow run's, of anyone's repository. `actor` is only who started it. Names can be
/// given to somebody else once they are free; the ids cannot.
/// <https://docs.github.com/en/actions/reference/security/oidc>
static GITHUB: Profile = Profile {
    human: &[],
    workload: &[Sign::present("repository_owner_id"), Sign::present("repository_id"), Sign::present("run_id")],
    client: &["repository"],
    algorithms: &[Algorithm::RS256],
    client_for_audience: false,
    shared: true,
    context: run("run_id"),
};

/// An issuer that knows of no execution.
const fn silent() -> ContextMapping {
    ContextMapping { execution: None, state: None, entered: None, attempt: None, redrive: None, item: None }
}

/// An issuer that runs the workload itself, and names the run in `claim`.
const fn run(claim: &'static str) -> ContextMapping {
    let execution = Some(in_claim(claim, Assurance::Proven));
    ContextMapping { execution, state: None, entered: None, attempt: None, redrive: None, item: None }
}

/// A claim into which the caller wrote what it liked, and which the issuer signed.
const fn tag(claim: &'static str) -> Option<ContextClaim> {
    Some(in_claim(claim, Assurance::Signed))
}

const fn in_claim(claim: &'static str, assurance: Assurance) -> ContextClaim {
    ContextClaim { claim: Cow::Borrowed(claim), assurance }
}

/// Whether `arn` is a role's, such as `arn:aws:iam::111122223333:role/Fulfilment`.
fn is_role(arn: &str) -> bool {
    iam(arn).and_then(|resource| resource.strip_prefix("role/")).is_some_and(|role| !role.is_empty())
}

/// The path of the roles that IAM Identity Center makes for people.
fn is_sso_role(arn: &str) -> bool {
    iam(arn).is_some_and(|resource| resource.starts_with("role/aws-reserved/sso.amazonaws.com/"))
}

fn is_iam_user(arn: &str) -> bool {
    iam(arn).is_some_and(|resource| resource.starts_with("user/"))
}

/// The resource of an IAM ARN: what comes after the account.
fn iam(arn: &str) -> Option<&str> {
    let mut parts = arn.splitn(6, ':');
    let (Some("arn"), Some(partition), Some("iam"), Some(""), Some(account)) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let is_account = account.len() == 12 && account.bytes().all(|digit| digit.is_ascii_digit());
    parts.next().filter(|_| is_account && partition.starts_with("aws"))
}
