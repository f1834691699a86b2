//! From a command line to a running controller, and down again.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use super::{
    backend::{Backend, NoticeSource, SampleSource, SystemClock},
    detect_ops::{watch_between, watch_seconds},
    engine::{Engine, Parts, StartError},
    handle::{Handle, off_loop},
    listen::{ControlSocket, ListenError, bind_web},
    logging, outside,
    prepare::Prepared,
    react::act,
    start::Choice,
};
use crate::{
    api::{
        error::Failure,
        server::{serve_tcp, serve_unix},
        web,
    },
    events::{Entry, Kind},
    export::Exporter,
    kernel::{Attachment, Dataplane, KernelError, Opened, XdpMode, XdpModeChoice},
    notify::{self, webhook::Patience},
    policy::PolicyErrors,
    state::{PolicyState, StateError, Store},
};

/// Threads for kernel and disk work; few, because one works at a time and the others wait.
const WORKERS: usize = 4;

/// What `weir run` was asked to do.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The policy file.
    pub policy: PathBuf,
    /// Interfaces to attach to; when there are any, the policy's own are ignored.
    pub interfaces: Vec<String>,
    /// The control socket.
    pub socket: PathBuf,
    /// The address of `/metrics`, `/healthz` and `/readyz`.
    pub listen: SocketAddr,
    /// Whether that may be an address that other machines reach.
    pub listen_public: bool,
    /// Which XDP mode to attach in.
    pub xdp_mode: XdpModeChoice,
    /// Where bans, live lists and the policy in force are kept.
    pub state_dir: PathBuf,
    /// Where programs, links and maps are pinned.
    pub bpffs: PathBuf,
    /// Take enforcement off when it ends.
    pub detach_on_exit: bool,
    /// How long a message of the webhook is tried, where it is not the usual hour.
    pub webhook_for: Option<Duration>,
}

/// Why the controller did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is described by its message")]
pub enum RunError {
    #[error("{0}")]
    Policy(PolicyErrors),
    #[error(
        "no interface to attach to: name one in the policy (interfaces = [\"eth0\"]) or with --interface; `ip link` lists those that exist"
    )]
    NoInterface,
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{0}")]
    Failed(#[from] Failure),
    #[error("cannot {what}: {source}")]
    System {
        what: &'static str,
        source: std::io::Error,
    },
}

impl RunError {
    /// The process's exit code: 2 for wrong usage or an invalid policy, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Policy(_) | Self::NoInterface | Self::Listen(ListenError::Public { .. }) => 2,
            _ => 1,
        }
    }
}

/// Attaches and controls until SIGTERM or SIGINT.
pub fn run(mut options: RunOptions) -> Result<(), RunError> {
    logging::init();
    let began = Instant::now();
    // The next start may be in another working directory, and finds the list files by this path.
    options.policy = std::path::absolute(&options.policy).map_err(|source| RunError::System {
        what: "find the working directory",
        source,
    })?;
    let file = Prepared::from_file(&options.policy).map_err(RunError::Policy)?;
    for warning in &file.warnings {
        tracing::warn!("{warning}");
    }
    let interfaces = interfaces(&options, &file)?;
    let store = Arc::new(Store::open(&options.state_dir)?);
    let web = bind_web(options.listen, options.listen_public)?;
    let (socket, control) = ControlSocket::bind(&options.socket)?;

    let choice = Choice::of(&store, file)?;
    let (dataplane, opened) = Dataplane::open(&options.bpffs, &choice.prepared.policy.source)?;
    if let Opened::Replaced(lost) = &opened {
        tracing::warn!(
            lost,
            "what was pinned does not fit this version of weir and was replaced"
        );
    }
    let before = dataplane.policy_text()?;
    let parts = Parts {
        backend: Box::new(dataplane),
        clock: Arc::new(SystemClock),
        store: Arc::clone(&store),
        policy_file: options.policy.clone(),
    };
    let before = before.and_then(|text| recover(&store, &text));
    let mut engine = Engine::start(parts, choice)?;
    engine.mind_the_door(Box::new(socket.door()));
    let attached = match engine.attach(&interfaces, options.xdp_mode) {
        Ok(attached) => attached,
        Err(failure) => {
            if let Some(before) = before {
                engine.restore(before);
            }
            engine.remove_unused();
            return Err(failure.into());
        }
    };
    if let Opened::Replaced(lost) = opened {
        engine.replaced = Some(lost);
    }
    // A full disk is no reason to leave a node without its controller.
    if let Some(unsaved) = engine.write_down() {
        tracing::error!("{unsaved}; weir goes on trying");
    }
    for attachment in &attached {
        log_attachment(attachment);
    }
    for fault in engine.handshake_faults() {
        tracing::warn!("{fault}");
    }
    engine.warn_of_lock_outs();
    let version = env!("CARGO_PKG_VERSION");
    engine.tell(Entry::new(Kind::Started, format!("weir {version} started")));
    let notices = engine.notices()?;
    let samples = engine.samples()?;

    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(WORKERS)
        .build()
        .map_err(|source| RunError::System {
            what: "start the event loop",
            source,
        })?;
    let handle = Handle::new(engine);
    let stopped = runtime.block_on(async {
        let system = |what| move |source| RunError::System { what, source };
        let signals = Signals::new().map_err(system("listen for signals"))?;
        let control =
            tokio::net::UnixListener::from_std(control).map_err(system("serve the control socket"))?;
        let web = tokio::net::TcpListener::from_std(web).map_err(system("serve --listen"))?;
        let status = format!("enforcing on {}", interfaces.join(", "));
        let listeners = (control, web, notices, samples);
        serve(&handle, listeners, signals, &status, began, &options).await
    });
    drop(socket);
    stopped?;
    finish(&runtime, &handle, options.detach_on_exit)
}

/// The interfaces to attach to; all of them exist.
fn interfaces(options: &RunOptions, file: &Prepared) -> Result<Vec<String>, RunError> {
    let named = if options.interfaces.is_empty() {
        &file.policy.interfaces
    } else {
        &options.interfaces
    };
    let mut interfaces: Vec<String> = Vec::new();
    for name in named {
        if !interfaces.contains(name) {
            interfaces.push(name.clone());
        }
    }
    if interfaces.is_empty() {
        return Err(RunError::NoInterface);
    }
    for name in &interfaces {
        if nix::net::if_::if_nametoindex(name.as_str()).is_err() {
            return Err(missing(options, name).into());
        }
    }
    Ok(interfaces)
}

/// An interface is not there: perhaps only its name is not.
fn missing(options: &RunOptions, name: &str) -> KernelError {
    let attached = crate::kernel::attachments(&options.bpffs).unwrap_or_default();
    let renamed = attached
        .into_iter()
        .find_map(|found| found.renamed.filter(|_| found.interface == name));
    let name = name.to_owned();
    match renamed {
        Some(now) => KernelError::Renamed { name, now },
        None => KernelError::NoInterface { name },
    }
}

/// The policy that the kernel holds from before this start, to go back to when an interface refuses.
fn recover(store: &Store, text: &str) -> Option<Prepared> {
    let stored: Option<PolicyState> = store.load(PolicyState::FILE).ok().flatten();
    let path = stored
        .filter(|stored| stored.text == text)
        .map(|stored| stored.path);
    let path = path.unwrap_or_else(|| "/policy in force".to_owned());
    Prepared::from_text(text, &path)
        .inspect_err(
            |errors| tracing::warn!(%errors, "the policy in force before this start cannot be read back"),
        )
        .ok()
}

fn log_attachment(attachment: &Attachment) {
    let Attachment {
        interface,
        xdp_mode,
        fallback,
        reused,
        ..
    } = attachment;
    match xdp_mode {
        XdpMode::Native => tracing::info!(interface, xdp_mode = "native", reused, "attached"),
        XdpMode::Generic => tracing::warn!(
            interface,
            xdp_mode = "generic",
            reused,
            why = fallback.as_deref().unwrap_or("asked for"),
            "attached in generic mode: it is slower and sees super-frames, so packet limits are not exact"
        ),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Where requests, notices and samples come from.
type Sources = (
    tokio::net::UnixListener,
    tokio::net::TcpListener,
    Box<dyn NoticeSource>,
    Box<dyn SampleSource>,
);

async fn serve(
    handle: &Handle,
    (control, web, notices, samples): Sources,
    mut signals: Signals,
    status: &str,
    began: Instant,
    options: &RunOptions,
) -> Result<(), RunError> {
    let (stop, stopping) = watch::channel(false);
    let upkeep = tokio::spawn(handle.clone().upkeep(stopping.clone()));
    let control = tokio::spawn(serve_unix(
        control,
        crate::api::router(handle.clone()),
        stopping.clone(),
    ));
    let web = tokio::spawn(serve_tcp(web, web::router(handle.clone()), stopping.clone()));
    let notices = tokio::spawn(super::notices::follow(handle.clone(), notices, stopping.clone()));
    let traffic = handle.call(|engine| Ok(engine.traffic())).await?;
    let stand = handle.call(|engine| Ok(engine.export())).await?;
    let export = Exporter::new(stand).run(handle.clone(), traffic.follow(), stopping.clone());
    let export = tokio::spawn(export);
    let detection = handle.call(|engine| Ok(engine.detection())).await?;
    let samples = tokio::spawn(super::samples::follow(
        handle.clone(),
        samples,
        traffic,
        Arc::clone(&detection),
        stopping.clone(),
    ));
    let between = watch_between(handle.clone(), Arc::clone(&detection), stopping.clone());
    let between = tokio::spawn(between);
    let outside = outside::follow(handle.clone(), Arc::clone(&detection), stopping.clone());
    let outside = tokio::spawn(outside);
    let webhook = handle.call(|engine| Ok(engine.webhook())).await?;
    let mut patience = Patience::default();
    patience.whole = options.webhook_for.unwrap_or(patience.whole);
    let webhook = tokio::spawn(webhook.deliver(patience, stopping.clone()));
    let acts = tokio::spawn(act(handle.clone(), Arc::clone(&detection), stopping.clone()));
    let seconds = tokio::spawn(watch_seconds(handle.clone(), detection, stopping.clone()));
    let heartbeat = tokio::spawn(handle.clone().heartbeat(stopping.clone()));
    let watchdog = tokio::spawn(watchdog(handle.clone()));

    let revision = handle.call(|engine| Ok(engine.revision())).await?;
    notify::ready(status);
    tracing::info!(
        revision, socket = %options.socket.display(), listen = %options.listen, took_ms = began.elapsed().as_millis(),
        "ready: {status}"
    );
    let signal = loop {
        tokio::select! {
            _ = signals.terminate.recv() => break "SIGTERM",
            _ = signals.interrupt.recv() => break "SIGINT",
            _ = signals.hangup.recv() => {
                notify::reloading();
                tracing::info!(policy = %options.policy.display(), "SIGHUP: reading the policy file again");
                if let Err(failure) = handle.reload().await {
                    handle.tell(Entry::new(Kind::PolicyRefused, format!("the policy file is not put in force: {failure}"))).await;
                    // A single one is in the failure's own sentence.
                    for line in failure.details.iter().filter(|_| failure.details.len() > 1) {
                        tracing::error!("{line}");
                    }
                    tracing::error!(error = %failure, "the policy file is not put in force; what was in force stays");
                }
                notify::ready(status);
            }
        }
    };
    tracing::info!(signal, "stopping");
    notify::stopping();
    watchdog.abort();
    // Before the listeners end: followers are told, and go.
    let closed = handle.call(|engine| {
        engine.close_events();
        Ok(())
    });
    let _ = closed.await;
    // The receivers are gone only when their tasks have ended already.
    let _ = stop.send(true);
    for task in [
        control, web, upkeep, heartbeat, export, seconds, between, acts, outside, webhook,
    ] {
        let _ = task.await;
    }
    if let Ok(Err(error)) = samples.await {
        tracing::error!(%error, "the samples of the traffic could not be read");
    }
    if let Ok(Err(error)) = notices.await {
        tracing::error!(%error, "what the kernel announced could not be heard");
    }
    Ok(())
}

/// Saves what is not saved, and takes enforcement off if that was asked for.
fn finish(runtime: &runtime::Runtime, handle: &Handle, detach: bool) -> Result<(), RunError> {
    runtime.block_on(async {
        handle.save().await;
        let save = |engine: &mut Engine| Ok((engine.detection(), engine.now()));
        let (detection, now) = handle.call(save).await?;
        // A failure is told where it happens.
        let _ = off_loop(move || detection.save(now)).await;
        let attached = handle.call(|engine| engine.attachments()).await?;
        if attached.is_empty() {
            tracing::info!("stopped; nothing was attached");
        } else if detach {
            handle.call(|engine| engine.detach(&[], None)).await?;
            tracing::info!("stopped; enforcement is off");
        } else {
            let names: Vec<String> = attached
                .into_iter()
                .map(|attachment| attachment.interface)
                .collect();
            tracing::info!(
                interfaces = names.join(" "),
                "stopped; enforcement stays on (`weir detach` takes it off)"
            );
        }
        Ok(())
    })
}

/// Tells systemd that the controller lives, which it does while the engine answers.
async fn watchdog(handle: Handle) {
    let Some(interval) = notify::watchdog_interval() else {
        return;
    };
    loop {
        if handle.call(|engine| Ok(engine.revision())).await.is_ok() {
            notify::watchdog();
        }
        tokio::time::sleep(interval).await;
    }
}

impl From<PolicyErrors> for RunError {
    fn from(errors: PolicyErrors) -> Self {
        Self::Policy(errors)
    }
}

// The engine must be able to move to the threads that work for it.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Box<dyn Backend>>();
    is_send::<Engine>();
};
