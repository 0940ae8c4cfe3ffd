//! A generation's object and the twin that it is tested with, loaded together.

use std::fs;
use std::path::Path;

use aya::maps::MapInfo;

use crate::error::Context as _;
use crate::generation::readback;
use crate::generation::selftest::{self, Twin};
use crate::host::local;
use crate::object::memory;
use crate::object::{self, HostFacts, Loaded, NAMESPACE, Placing, SHARED, TABLES, Tables};
use portguard_policy::cells::Directory;
use portguard_policy::image::Image;
use portguard_policy::policy::Policy;

/// Both, filled, verified and read back.
#[derive(Debug)]
pub(crate) struct Pair {
    /// What is to be put in force.
    pub(crate) loaded: Loaded,
    /// What only those need who test it, or give it other addresses.
    rest: Option<Rest>,
    /// Whether it was given other addresses since it was loaded.
    pub(crate) is_changed: bool,
}

#[derive(Debug)]
struct Rest {
    /// What frames are run through.
    twin: Twin,
    /// The tables that both have.
    tables: Tables,
}

/// Where a pair's maps go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// Maps that outlive generations.
    pub(crate) shared: &'a Path,
    /// Maps that all guards of the network namespace share.
    pub(crate) namespace: Option<&'a Path>,
    /// A directory of its own on bpffs: there the twin finds the tables.
    pub(crate) own: &'a Path,
    /// Leave room for addresses to come.
    pub(crate) room: bool,
}

impl Pair {
    /// Loads both.
    ///
    /// # Errors
    /// What the kernel refused, and tables that do not hold what was written.
    pub(crate) fn load(image: Image, host: &HostFacts, place: Place<'_>) -> crate::Result<Self> {
        let facts = object::facts(&image.facts, host);
        let image = Image {
            facts: selftest::of_twin(&image.facts),
            ..image
        };
        let twin_facts = object::facts(&image.facts, &selftest::host_of_twin(host));
        let (loaded, twin, tables) = object::as_kernel_allows(|frags| {
            let own = Placing {
                tables: Some(place.own),
                room: place.room,
                ..Placing::default()
            };
            let placing = Placing {
                shared: Some(place.shared),
                namespace: place.namespace,
                ..own
            };
            // The twin first: what it has for itself has no place yet.
            let objects = [(twin_facts, own), (facts, placing)];
            let [mut twin, mut opened] = object::open(&image, objects, frags)?;
            for path in TABLES.map(|name| place.own.join(name)) {
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove `{}`", path.display()))?;
            }
            let mut tables = opened.tables()?;
            let facts = *opened.facts();
            object::verify(&mut [&mut opened, &mut twin], || {
                tables.fill(&image)?;
                readback::compare(&tables, &image, &facts)
            })?;
            Ok((opened.into_loaded(), twin.into_loaded(), tables))
        })?;
        Ok(Self {
            loaded,
            rest: Some(Rest {
                twin: Twin {
                    image,
                    loaded: twin,
                },
                tables,
            }),
            is_changed: false,
        })
    }

    /// Whether everything that is frozen in another pair's programs is the same.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let (Some(own), Some(other_rest)) = (&self.rest, &other.rest) else {
            return false;
        };
        let (own, others) = (&own.twin.image, &other_rest.twin.image);
        self.loaded.facts == other.loaded.facts
            && self.loaded.local == other.loaded.local
            && own.inbound == others.inbound
            && own.outbound == others.outbound
            && own.rules == others.rules
    }

    /// Whether [`Self::change`] can make this pair what [`Self::load`] would: everything that is frozen in its programs is
    /// the same, and only addresses differ.
    ///
    /// # Errors
    /// If the kernel says nothing of the maps.
    pub(crate) fn can_become(
        &self,
        image: &Image,
        host: &HostFacts,
        (shared, namespace): (&Path, Option<&Path>),
    ) -> crate::Result<bool> {
        let mut facts = object::facts(&image.facts, host);
        // What the kernel allowed once, it allows again.
        facts.multi_buffer = self.loaded.facts.multi_buffer;
        if facts != self.loaded.facts || facts.deadline != 0 {
            return Ok(false);
        }
        if facts.scoped != 0 && local::prefixes()? != self.loaded.local {
            return Ok(false);
        }
        let shared = SHARED.map(|name| (name, shared.join(name)));
        let namespace = namespace.map(|there| NAMESPACE.map(|name| (name, there.join(name))));
        for (name, pin) in shared.into_iter().chain(namespace.into_iter().flatten()) {
            let own = memory::data(self.loaded.map(name)?)?.info()?.id();
            let there = MapInfo::from_pin(pin).map(|info| info.id());
            if there.ok() != Some(own) {
                return Ok(false);
            }
        }
        match &self.rest {
            Some(rest) => rest.tables.can_become(&rest.twin.image, image),
            None => Ok(false),
        }
    }

    /// Gives it other addresses, and reads them back. Its programs must be attached nowhere.
    ///
    /// # Errors
    /// What the kernel refused, and tables that do not hold what was written; the pair is of no use then.
    pub(crate) fn change(&mut self, image: Image) -> crate::Result<()> {
        let Rest { twin, tables } = self.rest.as_mut().context(NO_REST)?;
        let image = Image {
            facts: twin.image.facts,
            ..image
        };
        self.is_changed = true;
        tables.change(&twin.image, &image)?;
        let mut roots = twin.loaded.tables()?;
        roots.change_roots(&twin.image, &image)?;
        twin.image = image;
        readback::compare(tables, &twin.image, &self.loaded.facts)?;
        readback::globals(&roots, &twin.image, &twin.loaded.facts)
    }

    /// Runs frames through the twin.
    ///
    /// # Errors
    /// The first verdict that differs, and if the kernel cannot run programs on frames.
    pub(crate) fn test(&mut self, policy: &Policy) -> crate::Result<usize> {
        let rest = self.rest.as_mut().context(NO_REST)?;
        selftest::run(&mut self.loaded, &mut rest.twin, policy)
    }

    /// What every counter cell means.
    ///
    /// # Errors
    /// After [`Self::shed`].
    pub(crate) fn directory(&self) -> crate::Result<&Directory> {
        let rest = self.rest.as_ref().context(NO_REST)?;
        Ok(&rest.twin.image.directory)
    }

    /// Lets go of what is not needed to put it in force.
    pub(crate) fn shed(&mut self) {
        self.rest = None;
    }
}

/// For what cannot happen as [`crate::generation::prepare`] uses it.
const NO_REST: &str = "the twin of these programs is gone";
