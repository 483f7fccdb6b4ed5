//! Listings, page after page.
//!
//! Guarantees: no more than one page is in memory, and a listing comes to its end or is an error: it ends after so many pages,
//! and where a page leads to one that has been there before. What a page is, is `listing.rs`'s to tell.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use object_store::list::PaginatedListOptions;

use crate::base::printable::printable;
use crate::error::Error;
use crate::store::waist::{self, Entry};

use super::address::Service;
use super::answers::Expected;
use super::asking::limit_for;
use super::failure::Failure;
use super::listing::{self, Dialect};
use super::requests::Shared;

/// Pages of objects that are looked at, each of up to a thousand, or five thousand: more than a hundred terabytes of WAL.
const PAGES_MAX: usize = 10_000;

/// Where a page of a listing begins.
pub(super) enum From {
    Start,
    /// Behind this key, in the store's order.
    After(String),
    /// Where the store said that the next one does.
    Token(String),
}

impl From {
    /// Behind this key, as far as the store knows the question.
    pub(super) fn after(shared: &Shared, key: &str) -> From {
        match shared.address.service {
            Service::S3 | Service::Gcs if !key.is_empty() => From::After(key.to_owned()),
            // Azure has no such question but in versions that not all of them speak.
            _ => From::Start,
        }
    }
}

impl Shared {
    /// One page of the objects whose keys begin so, of so many at most or as many as the store likes, and where the next
    /// one begins.
    pub(super) fn page(
        &self,
        prefix: &str,
        from: &From,
        most: Option<usize>,
    ) -> Result<(Vec<Entry>, Option<From>), Error> {
        let could_not = || format!("could not list \"{}\"", self.address.place());
        let page = self.ask_for_page(prefix, from, most)?;
        let page = page.map_err(|failure| failure.error(&could_not()))?;
        // Without one it was not answered through `answers.rs`, and nothing is known of it.
        let page = page.and_then(Arc::into_inner);
        let Some(page) = page else {
            let could_not = could_not();
            return Err(Error::unavailable(format!("{could_not}: nothing was told")));
        };
        self.skipped.fetch_add(page.odd, Ordering::Relaxed);
        if let Some(prefix) = page.prefix.filter(|it| !is_of(&self.name(prefix), it)) {
            let (could_not, prefix) = (could_not(), printable(&prefix));
            return Err(Error::unavailable(format!(
                "{could_not}: the store answered with what begins with \"{prefix}\""
            )));
        }
        let root = self.name("");
        let entries = page.objects.into_iter().filter_map(|object| {
            let key = object.name.strip_prefix(&root)?;
            // Folders that are listed as if they were objects are not ours.
            let is_meant = waist::is_listed(prefix, key) && !key.is_empty() && !key.ends_with('/');
            is_meant.then(|| Entry {
                key: key.to_owned(),
                bytes: object.bytes,
                modified: object.modified,
            })
        });
        Ok((entries.collect(), page.next.map(From::Token)))
    }

    fn ask_for_page(
        &self,
        prefix: &str,
        from: &From,
        most: Option<usize>,
    ) -> Result<Result<Option<Arc<listing::Page>>, Failure>, Error> {
        let asked = self.name(prefix);
        let (offset, token) = match from {
            From::Start => (None, None),
            From::After(key) => (Some(self.name(key)), None),
            From::Token(token) => (None, Some(token.clone())),
        };
        // Without a delimiter the store shows what is in folders, too.
        let delimiter = (!prefix.contains('/')).then(|| "/".into());
        let dialect = match self.address.service {
            Service::S3 | Service::Gcs => Dialect::S3,
            Service::Azure => Dialect::Azure,
        };
        self.ask(limit_for(0), move |client| {
            let asked = asked.clone();
            let options = PaginatedListOptions {
                offset: offset.clone(),
                delimiter: delimiter.clone(),
                max_keys: most,
                page_token: token.clone(),
                extensions: Expected::Listing(dialect).extensions(),
            };
            async move {
                let asked = Some(asked.as_str()).filter(|asked| !asked.is_empty());
                let mut answer = client.list_paginated(asked, options).await?;
                Ok(answer.result.extensions.remove())
            }
        })
    }

    /// Shows what [`Shared::page`] gives, page after page, until `visit` breaks.
    pub(super) fn each(
        &self,
        prefix: &str,
        mut from: From,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.skipped.store(0, Ordering::Relaxed);
        let mut tokens = HashSet::new();
        for _ in 0..PAGES_MAX {
            let (entries, next) = self.page(prefix, &from, None)?;
            for entry in entries {
                if visit(entry).is_break() {
                    return Ok(());
                }
            }
            let Some(next) = next else {
                return Ok(());
            };
            if let From::Token(token) = &next
                && !tokens.insert(digest(token))
            {
                return Err(self.endless("a page was to follow that had been given before"));
            }
            from = next;
        }
        Err(self.endless(&format!("there are more than {PAGES_MAX} pages")))
    }

    fn endless(&self, why: &str) -> Error {
        let place = self.address.place();
        Error::unavailable(format!("could not list \"{place}\" to its end: {why}"))
            .with_hint("A faulty store answers so, or a faulty proxy before it; or there is more in this place than an archive.")
    }
}

/// Whether all that was asked for is in a listing of this prefix, which some stores tell in the letters of URLs.
fn is_of(asked: &str, told: &str) -> bool {
    let plain = told
        .replace("%2F", "/")
        .replace("%2f", "/")
        .replace("%3D", "=")
        .replace("%3d", "=");
    asked.starts_with(&plain)
}

/// What a token is remembered by.
fn digest(token: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    token.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_of_what_was_asked_for_or_of_more() {
        for told in ["main/0000", "main/", "", "main%2F0000", "main%2f"] {
            assert!(is_of("main/0000", told), "{told}");
        }
        for told in ["main/00000001", "other/", "main/0001"] {
            assert!(!is_of("main/0000", told), "{told}");
        }
    }
}
