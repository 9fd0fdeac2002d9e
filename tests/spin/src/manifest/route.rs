//! The path that a trigger answers: an exact one, or all below one.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, ensure};

/// Ends a route that answers everything below it.
const WILDCARD: &str = "/...";

/// A route of an HTTP trigger: `/healthz`, `/stages/...`. A slash at the end means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Without a slash at the end: empty for the root.
    path: String,
    reach: Reach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Exact,
    Below,
}

impl Route {
    /// Tells how well the route fits: the greatest wins. An exact route beats one that ends in `/...`, and of those the
    /// longest wins. `None` when it does not fit.
    pub(crate) fn fit(&self, path: &str) -> Option<(bool, usize)> {
        let path = path.trim_end_matches('/');
        let rest = path.strip_prefix(self.path.as_str())?;
        match self.reach {
            Reach::Exact => rest.is_empty().then_some((true, self.path.len())),
            Reach::Below => (rest.is_empty() || rest.starts_with('/')).then_some((false, self.path.len())),
        }
    }

    /// The route without its `/...`.
    pub(crate) fn prefix(&self) -> &str {
        if self.path.is_empty() { "/" } else { &self.path }
    }

    /// What of a path that fits is below the route: empty for an exact one.
    pub(crate) fn below<'a>(&self, path: &'a str) -> &'a str {
        match self.reach {
            Reach::Exact => "",
            Reach::Below => path.strip_prefix(self.path.as_str()).unwrap_or_default(),
        }
    }
}

impl FromStr for Route {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (path, reach) = match text.strip_suffix(WILDCARD) {
            Some(path) => (path, Reach::Below),
            None => (text, Reach::Exact),
        };
        let begins = text.starts_with('/');
        ensure!(begins, "route: found `{text}`, expected a path that begins with `/`");
        let segments = !path.contains("/:") && !path.contains("...");
        ensure!(segments, "route: found `{text}`, expected plain segments and at most one `/...`, at the end");
        Ok(Self { path: path.trim_end_matches('/').to_owned(), reach })
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reach {
            Reach::Exact => f.write_str(self.prefix()),
            Reach::Below => write!(f, "{}{WILDCARD}", self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best<'a>(routes: &[&'a str], path: &str) -> Option<&'a str> {
        let fit = |route: &&str| route.parse::<Route>().unwrap().fit(path);
        routes.iter().filter(|route| fit(route).is_some()).max_by_key(|route| fit(route)).copied()
    }

    #[test]
    fn an_exact_route_beats_a_wildcard_and_the_longest_wildcard_wins() {
        let routes = ["/...", "/a/...", "/a/b/...", "/a/b"];
        assert_eq!(best(&routes, "/"), Some("/..."));
        assert_eq!(best(&routes, "/ab"), Some("/..."));
        assert_eq!(best(&routes, "/a"), Some("/a/..."));
        assert_eq!(best(&routes, "/a/"), Some("/a/..."));
        assert_eq!(best(&routes, "/a/b"), Some("/a/b"));
        assert_eq!(best(&routes, "/a/b/"), Some("/a/b"));
        assert_eq!(best(&routes, "/a/b/c"), Some("/a/b/..."));
        assert_eq!(best(&["/a", "/b/..."], "/a/c"), None);
    }

    #[test]
    fn a_route_says_what_is_below_it() {
        let route: Route = "/a/...".parse().unwrap();
        assert_eq!((route.prefix(), route.below("/a/b/c"), route.to_string().as_str()), ("/a", "/b/c", "/a/..."));
        let root: Route = "/".parse().unwrap();
        assert_eq!((root.prefix(), root.below("/"), root.to_string().as_str()), ("/", "", "/"));
        assert_eq!("/...".parse::<Route>().unwrap().to_string(), "/...");
    }

    #[test]
    fn other_routes_are_refused() {
        for wrong in ["", "a", "/a/.../b", "/:name/a", "..."] {
            assert!(wrong.parse::<Route>().is_err(), "{wrong}");
        }
    }
}
