//! A simulated kernel, and the process of an agent on it.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::*;

/// What a kernel does; a site with the word `cut` closes the way to the store when it is enforced, and one with the word
/// `panic` brings the machine down.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    pub(super) policy: Option<(String, bool)>,
    pub(super) before: Option<(String, bool)>,
    pub(super) deadline: Option<Instant>,
    pub(super) evidence: Judgement,
    pub(super) enforced: Vec<String>,
    /// Another version of the compiler, or another catalog: the same site compiles to something else.
    pub(super) is_other: bool,
    /// Interfaces that are guarded besides the one of the fleet.
    pub(super) by_hand: Option<String>,
    /// The network between this host and the store is gone.
    pub(super) is_apart: bool,
    /// Loading is refused, since open sessions would be cut.
    pub(super) refuses: bool,
    /// A site that closes the way to the store since the network changed.
    pub(super) cutting: Option<String>,
    /// Counts what is loaded.
    pub(super) generation: u64,
    /// What takes too long, so often, and whether it is done all the same.
    pub(super) slow: Option<(&'static str, usize, bool)>,
    /// How long evidence is judged.
    pub(super) judges_for: Duration,
    /// What was asked of it, and how often.
    pub(super) asked: BTreeMap<&'static str, usize>,
}

impl Kernel {
    pub(super) fn effective(&self) -> Option<&(String, bool)> {
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            self.before.as_ref()
        } else {
            self.policy.as_ref()
        }
    }

    /// The deadline passes: the kernel's own doing.
    pub(super) fn lapse(&mut self) {
        if self.deadline.is_some() {
            self.deadline = Some(Instant::now());
        }
    }

    /// The machine goes down and comes up: nothing is guarded.
    pub(super) fn boot(&mut self) {
        (self.policy, self.before, self.deadline, self.generation) = (None, None, None, 0);
    }

    pub(super) fn cuts(&self) -> bool {
        self.effective().is_some_and(|(site, enforces)| {
            *enforces && (site.contains("cut") || self.cutting.as_ref() == Some(site))
        })
    }
}

/// A host's process dies at its so-manieth act: it never returns from it.
#[derive(Debug)]
pub(super) struct Fuse {
    left: AtomicUsize,
    /// Signs of life.
    pub(super) beats: AtomicUsize,
    blown: Notify,
}

impl Default for Fuse {
    fn default() -> Self {
        Self {
            left: AtomicUsize::new(usize::MAX),
            beats: AtomicUsize::new(0),
            blown: Notify::new(),
        }
    }
}

impl Fuse {
    /// It dies after so many; or, with [`usize::MAX`], never.
    pub(super) fn set(&self, after: usize) {
        self.left.store(after, Ordering::SeqCst);
    }

    pub(super) async fn burn(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.blown.notify_one();
            std::future::pending::<()>().await;
        }
    }

    pub(super) async fn blown(&self) {
        self.blown.notified().await;
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Simulated(pub(super) Arc<Mutex<Kernel>>, pub(super) Arc<Fuse>);

fn digest(site: &str, enforces: bool) -> String {
    Hash::of(format!("{site}{enforces}").as_bytes()).to_string()
}

pub(super) fn digests(site: &str, enforces: bool) -> BTreeMap<String, String> {
    [("eth0".to_owned(), digest(site, enforces))].into()
}

fn site(documents: &Documents) -> String {
    std::fs::read_to_string(documents.site()).unwrap()
}

impl Simulated {
    /// What somebody guards by hand.
    fn others(&self, interfaces: &[String]) -> Vec<String> {
        let by_hand = self.0.lock().unwrap().by_hand.clone();
        let is_other = |name: &String| !interfaces.is_empty() && !interfaces.contains(name);
        by_hand.into_iter().filter(is_other).collect()
    }
}

impl Simulated {
    /// Counts what is asked; an error, where that is slow and not done. Whether it is done, and nobody hears of it.
    fn ask(&self, what: &'static str) -> Result<bool, GuardError> {
        let mut kernel = self.0.lock().unwrap();
        *kernel.asked.entry(what).or_default() += 1;
        match &mut kernel.slow {
            Some((slow, times, is_done)) if *slow == what && *times > 0 => {
                *times -= 1;
                if *is_done { Ok(true) } else { Err(late()) }
            }
            _ => Ok(false),
        }
    }

    fn load(&self, documents: &Documents, enforces: bool, deadline: Option<Instant>) {
        let site = site(documents);
        let mut kernel = self.0.lock().unwrap();
        kernel.generation += 1;
        kernel.before = kernel.policy.take();
        kernel.policy = Some((site.clone(), enforces));
        kernel.deadline = deadline;
        if enforces {
            kernel.enforced.push(site);
        }
    }
}

fn late() -> GuardError {
    GuardError::Late("it took an hour".to_owned())
}

impl Guard for Simulated {
    async fn compile(
        &mut self,
        documents: &Documents,
        audit: bool,
    ) -> Result<BTreeMap<String, String>, GuardError> {
        self.ask("compile")?;
        let other = if self.0.lock().unwrap().is_other {
            "other"
        } else {
            ""
        };
        self.1.burn().await;
        Ok(digests(&(site(documents) + other), !audit))
    }

    async fn in_force(&mut self, interfaces: &[String]) -> Result<InForce, GuardError> {
        self.1.burn().await;
        self.ask("in force")?;
        let others = self.others(interfaces);
        let kernel = self.0.lock().unwrap();
        let Some((site, enforces)) = &kernel.policy else {
            return Ok(InForce::default());
        };
        Ok(InForce {
            digests: digests(site, *enforces),
            generations: [("eth0".to_owned(), kernel.generation)].into(),
            enforces: *enforces,
            is_unconfirmed: kernel.deadline.is_some(),
            has_lapsed: kernel
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline),
            violations: 0,
            others,
        })
    }

    async fn audit(&mut self, documents: &Documents, named: &[String]) -> Result<(), GuardError> {
        self.1.burn().await;
        assert_eq!(named, ["eth0"]);
        let is_late = self.ask("audit")?;
        self.load(documents, false, None);
        self.1.burn().await;
        if is_late { Err(late()) } else { Ok(()) }
    }

    async fn judge(&mut self, _: &Documents, _: &Gate) -> Result<Judgement, GuardError> {
        self.ask("judge")?;
        let (evidence, takes) = {
            let kernel = self.0.lock().unwrap();
            (kernel.evidence.clone(), kernel.judges_for)
        };
        tokio::time::sleep(takes).await;
        Ok(evidence)
    }

    async fn enforce(
        &mut self,
        documents: &Documents,
        within: Duration,
        cuts: bool,
    ) -> Result<(), GuardError> {
        self.1.burn().await;
        if self.0.lock().unwrap().refuses && !cuts {
            return Err("open sessions would be cut".to_owned().into());
        }
        let is_late = self.ask("enforce")?;
        self.load(documents, true, Some(Instant::now() + within));
        if site(documents).contains("panic") {
            self.1.set(0);
        }
        self.1.burn().await;
        if is_late { Err(late()) } else { Ok(()) }
    }

    async fn confirm(&mut self, _interfaces: &[String]) -> Result<(), GuardError> {
        self.1.burn().await;
        let is_late = self.ask("confirm")?;
        {
            let mut kernel = self.0.lock().unwrap();
            if kernel
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline)
            {
                return Err("too late".to_owned().into());
            }
            kernel.deadline = None;
        }
        self.1.burn().await;
        if is_late { Err(late()) } else { Ok(()) }
    }
}
