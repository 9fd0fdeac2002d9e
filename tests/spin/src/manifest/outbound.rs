//! Which hosts a component may call.

use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use http::Uri;

/// Ends the host of another component of the same application.
const INTERNAL: &str = ".spin.internal";

/// A pattern of `allowed_outbound_hosts`: `http://127.0.0.1:*`, `https://*.example.com`, `http://name.spin.internal`.
#[derive(Clone, Debug)]
pub(crate) struct AllowedHost {
    /// `None`: any.
    scheme: Option<String>,
    host: Host,
    /// `None`: any.
    port: Option<u16>,
}

#[derive(Clone, Debug)]
enum Host {
    Any,
    Exactly(String),
    /// A name that ends so, with the dot before it.
    EndsWith(String),
}

/// Names the component that a request goes to, when it stays inside of the application.
pub(crate) fn internal_component(uri: &Uri) -> Option<&str> {
    uri.host()?.strip_suffix(INTERNAL)
}

impl AllowedHost {
    /// Tells whether a request may be sent. A host of the application is not part of `*`: it has to be named.
    pub(crate) fn allows(&self, uri: &Uri) -> bool {
        let Some((scheme, host)) = uri.scheme_str().zip(uri.host()) else { return false };
        let scheme_fits = self.scheme.as_ref().is_none_or(|allowed| allowed == scheme);
        let port_fits = self.port.is_none() || self.port == uri.port_u16().or_else(|| standard_port(scheme));
        let host_fits = match &self.host {
            Host::Any => !host.ends_with(INTERNAL),
            Host::Exactly(allowed) => allowed == host,
            Host::EndsWith(end) => host.ends_with(end),
        };
        scheme_fits && port_fits && host_fits
    }
}

impl FromStr for AllowedHost {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else {
            bail!("found `{text}`, expected `scheme://host` or `scheme://host:port`");
        };
        let (host, port) = match rest.trim_end_matches('/').split_once(':') {
            Some((host, "*")) => (host, None),
            Some((host, port)) => (host, Some(port.parse()?)),
            None => (rest.trim_end_matches('/'), standard_port(scheme)),
        };
        ensure!(!host.is_empty() && !host.contains('/'), "found `{text}`, expected a host behind `://`, and no path");
        ensure!(host != "self", "found `{text}`: this stand-in does not know `self`, expected a host");
        let host = match host.strip_prefix('*') {
            Some("") => Host::Any,
            Some(end) if end.starts_with('.') && !end.contains('*') => Host::EndsWith(end.to_owned()),
            None if !host.contains('*') => Host::Exactly(host.to_owned()),
            _ => bail!("found `{text}`, expected `*` alone or as the first part of the host"),
        };
        Ok(Self { scheme: (scheme != "*").then(|| scheme.to_owned()), host, port })
    }
}

fn standard_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &str, uri: &str) -> bool {
        pattern.parse::<AllowedHost>().unwrap().allows(&uri.parse().unwrap())
    }

    #[test]
    fn a_pattern_allows_what_it_names() {
        assert!(allows("http://127.0.0.1:*", "http://127.0.0.1:8080/x"));
        assert!(!allows("http://127.0.0.1", "http://127.0.0.1:8080/x"));
        assert!(allows("https://*.example.com", "https://a.example.com/"));
        assert!(!allows("https://*.example.com", "https://example.com/"));
        assert!(!allows("https://a.com", "http://a.com/"));
        assert!(allows("*://*:*", "http://a.com:1/"));
    }

    #[test]
    fn other_components_have_to_be_named() {
        assert!(allows("http://b.spin.internal", "http://b.spin.internal/x"));
        assert!(!allows("http://b.spin.internal", "http://c.spin.internal/x"));
        assert!(allows("http://*.spin.internal", "http://c.spin.internal/x"));
        assert!(!allows("*://*:*", "http://c.spin.internal/x"));
        assert_eq!(internal_component(&"http://c.spin.internal/x".parse().unwrap()), Some("c"));
        assert_eq!(internal_component(&"http://c.example.com/x".parse().unwrap()), None);
    }

    #[test]
    fn other_patterns_are_refused() {
        for wrong in ["a.com", "http://", "http://a.com/x", "http://a.*.com", "http://a.com:x", "http://self"] {
            assert!(wrong.parse::<AllowedHost>().is_err(), "{wrong}");
        }
    }
}
