//! The web page: one file, nothing loaded from elsewhere.

/// The page.
pub(super) const PAGE: &str = include_str!("page.html");
