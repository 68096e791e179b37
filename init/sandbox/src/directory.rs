// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is there to serve, as routing wants to know it.

use alloc::string::String;
use alloc::vec::Vec;

use cloister_init_config::Config;
use cloister_init_config::route::Directory;

use crate::child::{Child, State};

pub(crate) struct Servers<'s> {
    pub(crate) config: &'s Config,
    pub(crate) children: &'s [Child],
    pub(crate) local: &'s [&'static str],
}

impl Servers<'_> {
    fn serving<'n>(&'n self, service: &'n str) -> impl Iterator<Item = &'n Child> {
        let provides = move |child: &&Child| child.start.provides.iter().any(|provided| provided == service);
        self.children.iter().filter(|child| child.may_serve()).filter(provides)
    }
}

impl Directory for Servers<'_> {
    fn parent(&self, service: &str) -> bool {
        self.config.parent_provides.iter().any(|provided| provided == service)
    }

    fn child(&self, name: &str, service: &str) -> bool {
        self.serving(service).any(|child| child.start.name == name)
    }

    fn children(&self, service: &str) -> Vec<String> {
        self.serving(service).map(|child| child.start.name.clone()).collect()
    }

    fn local(&self, service: &str) -> bool {
        self.local.contains(&service)
    }
}

/// The child of this name that may serve or is to be started: never one that is about to go for good.
pub(crate) fn by_name<'c>(children: &'c [Child], name: &str) -> Option<&'c Child> {
    children.iter().find(|child| child.start.name == name && child.state != State::Abandoned)
}
