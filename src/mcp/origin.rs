//! From which pages and under which names the face may be called.
//!
//! A page can make the browser that shows it call any address, and can have its own name resolve to one that only that browser
//! reaches (DNS rebinding). A browser says where the page is from (`Origin`) and which name it believed to call (`Host`), so
//! both are held against lists. What is no browser sends no `Origin`, and is not asked for one.

use std::net::IpAddr;

use http::{
    HeaderMap, Uri,
    header::{HOST, ORIGIN},
    uri::Authority,
};

/// Who may call, as far as `Host` and `Origin` tell.
#[derive(Clone, Debug)]
pub struct Config {
    /// The names of the face.
    pub hosts: Vec<AllowedHost>,
    /// The pages that may call.
    pub origins: Vec<AllowedOrigin>,
}

/// A name under which the face may be called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AllowedHost {
    /// `localhost` and the addresses of loopback, on any port.
    Loopback,
    /// This name, on this port if one is given.
    Named(String, Option<u16>),
}

/// A page that may call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AllowedOrigin {
    /// One from `localhost` or an address of loopback, on any port.
    Loopback,
    /// One from this origin, as a browser writes it: `https://app.example`.
    Exact(String),
}

/// Why a caller is turned away at the door.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Stranger {
    /// A name that is not the face's.
    #[error("Host names none of the hosts in `mcp.allowed_hosts`")]
    Host,
    /// A page that may not call.
    #[error("Origin is none of those in `mcp.allowed_origins`")]
    Origin,
}

impl Config {
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Stranger> {
        let names = headers.get_all(HOST).iter().map(|value| Authority::try_from(value.as_bytes()).ok());
        // HTTP/2 has the name in the URI, and a caller may give both.
        let mut names = names.chain(uri.authority().map(|host| Some(host.clone()))).peekable();
        let ours = |host: Authority| self.hosts.iter().any(|allowed| allowed.is(&host));
        if names.peek().is_none() || !names.all(|host| host.is_some_and(ours)) {
            return Err(Stranger::Host);
        }
        let known = |value: &str| self.origins.iter().any(|allowed| allowed.is(value));
        let mut origins = headers.get_all(ORIGIN).iter();
        let all_known = origins.all(|value| value.to_str().is_ok_and(known));
        if all_known { Ok(()) } else { Err(Stranger::Origin) }
    }
}

impl AllowedHost {
    /// `stepgate.example`, `stepgate.example:8443` or `[fd00::1]`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let host = Authority::try_from(text).ok()?;
        let (name, port) = parts(&host)?;
        Some(Self::Named(name.to_ascii_lowercase(), port))
    }

    fn is(&self, host: &Authority) -> bool {
        let Some((name, port)) = parts(host) else { return false };
        match self {
            Self::Loopback => is_loopback(name),
            Self::Named(named, on) => named.eq_ignore_ascii_case(name) && (on.is_none() || *on == port),
        }
    }
}

impl AllowedOrigin {
    /// `https://app.example`, or whatever else has a scheme and a host and nothing behind them; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (_, host) = split(text)?;
        parts(&host).map(|_| Self::Exact(text.to_ascii_lowercase()))
    }

    fn is(&self, origin: &str) -> bool {
        match self {
            Self::Loopback => split(origin).is_some_and(|(scheme, host)| {
                matches!(scheme, "http" | "https") && parts(&host).is_some_and(|(name, _)| is_loopback(name))
            }),
            Self::Exact(exact) => exact.eq_ignore_ascii_case(origin),
        }
    }
}

/// Scheme and host of an origin.
fn split(origin: &str) -> Option<(&str, Authority)> {
    let (scheme, host) = origin.split_once("://")?;
    let well_named = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    Some((scheme, Authority::try_from(host).ok().filter(|_| well_named)?))
}

/// Name and port, where there is nothing else: no user, and no port that is none.
fn parts(host: &Authority) -> Option<(&str, Option<u16>)> {
    let name = Some(host.host()).filter(|name| !name.is_empty())?;
    match host.as_str().strip_prefix(name)? {
        "" => Some((name, None)),
        port => Some((name, Some(port.strip_prefix(':')?.parse().ok()?))),
    }
}

fn is_loopback(name: &str) -> bool {
    let address = name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(hosts: &[&str], origins: &[&str]) -> Config {
        Config {
            hosts: hosts.iter().map(|text| AllowedHost::parse(text).unwrap()).collect(),
            origins: origins.iter().map(|text| AllowedOrigin::parse(text).unwrap()).collect(),
        }
    }

    fn loopback() -> Config {
        Config { hosts: vec![AllowedHost::Loopback], origins: vec![AllowedOrigin::Loopback] }
    }

    fn check(config: &Config, uri: &str, list: &[(http::HeaderName, &str)]) -> Result<(), Stranger> {
        let headers = list.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        config.check(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn only_the_names_of_loopback_are_believed_unless_others_are_listed() {
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080"] {
            assert_eq!(check(&loopback(), "/mcp", &[(HOST, host)]), Ok(()), "{host}");
        }
        for host in
            ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "[::2]", "a@localhost:x"]
        {
            assert_eq!(check(&loopback(), "/mcp", &[(HOST, host)]), Err(Stranger::Host), "{host}");
        }
        assert_eq!(check(&loopback(), "/mcp", &[]), Err(Stranger::Host), "no name at all");
        let twice = [(HOST, "localhost"), (HOST, "evil.example")];
        let mut headers = HeaderMap::new();
        for (name, value) in twice {
            headers.append(name, value.parse().unwrap());
        }
        assert_eq!(loopback().check(&Uri::from_static("/mcp"), &headers), Err(Stranger::Host));
        assert_eq!(check(&loopback(), "http://evil.example/mcp", &[(HOST, "localhost")]), Err(Stranger::Host));
        assert_eq!(check(&loopback(), "http://localhost/mcp", &[]), Ok(()), "HTTP/2 names it in the URI");
    }

    #[test]
    fn a_listed_name_may_have_a_port() {
        let listed = config(&["Stepgate.example", "other.example:8443", "[fd00::1]"], &[]);
        for host in ["stepgate.example", "STEPGATE.EXAMPLE:1", "other.example:8443", "[fd00::1]:8080"] {
            assert_eq!(check(&listed, "/mcp", &[(HOST, host)]), Ok(()), "{host}");
        }
        for host in ["other.example", "other.example:443", "localhost", "stepgate.example.evil.example"] {
            assert_eq!(check(&listed, "/mcp", &[(HOST, host)]), Err(Stranger::Host), "{host}");
        }
        for wrong in ["", "https://stepgate.example", "a/b", "a@b", "a:b", "a:99999", ":80"] {
            assert_eq!(AllowedHost::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_page_from_elsewhere_may_not_call() {
        let of = |config: &Config, origin: &str| check(config, "/mcp", &[(HOST, "localhost"), (ORIGIN, origin)]);
        for origin in ["http://localhost:6274", "https://localhost", "http://127.0.0.1:1", "http://[::1]:3"] {
            assert_eq!(of(&loopback(), origin), Ok(()), "{origin}");
        }
        for origin in [
            "null",
            "",
            "https://evil.example",
            "http://localhost.evil.example",
            "ftp://localhost",
            "http://a@localhost",
            "localhost",
        ] {
            assert_eq!(of(&loopback(), origin), Err(Stranger::Origin), "{origin}");
        }
        let mut listed = config(&[], &["https://app.example", "vscode-file://vscode-app"]);
        listed.hosts = vec![AllowedHost::Loopback];
        for origin in ["https://app.example", "HTTPS://APP.example", "vscode-file://vscode-app"] {
            assert_eq!(of(&listed, origin), Ok(()), "{origin}");
        }
        for origin in [
            "http://app.example",
            "https://app.example:8443",
            "https://app.example.evil.example",
            "http://localhost",
            "null",
        ] {
            assert_eq!(of(&listed, origin), Err(Stranger::Origin), "{origin}");
        }
        for wrong in ["null", "app.example", "https://", "https://a/b", "https://a/", "https://u@a", "://a"] {
            assert_eq!(AllowedOrigin::parse(wrong), None, "{wrong}");
        }
    }
}
