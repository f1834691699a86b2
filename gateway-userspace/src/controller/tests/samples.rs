//! The reader of samples, over the fake kernel.

use std::{sync::mpsc, time::Duration};

use gateway_core::sample::Sample as Head;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::*;
use crate::{
    controller::{Handle, samples::follow},
    kernel::Sample,
    traffic::Traffic,
};

fn ring(bench: &Bench, samples: usize) {
    let sample = Sample {
        head: Head {
            one_in: 10,
            length: 60,
            ..Head::default()
        },
        bytes: vec![0; 60],
    };
    let mut kernel = bench.kernel.0.lock().unwrap();
    kernel.samples.extend(vec![sample; samples]);
}

async fn read(traffic: &Traffic, samples: u64) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    while traffic.sizes().samples < samples && Instant::now() < until {
        sleep(Duration::from_millis(20)).await;
    }
    traffic.sizes().samples >= samples
}

/// The ring holds two seconds; an engine may be at work on a policy for longer.
#[tokio::test(flavor = "current_thread")]
async fn samples_are_read_while_the_engine_is_at_work() {
    let bench = Bench::new();
    let engine = bench.start();
    let (source, traffic, detection) = (engine.samples().unwrap(), engine.traffic(), engine.detection());
    let handle = Handle::new(engine);
    let (stop, stopping) = watch::channel(false);
    let reader = tokio::spawn(follow(
        handle.clone(),
        source,
        Arc::clone(&traffic),
        detection,
        stopping,
    ));
    ring(&bench, 10);
    assert!(read(&traffic, 10).await);

    let (done, work) = mpsc::channel::<()>();
    let (begun, at_work) = tokio::sync::oneshot::channel();
    let working = handle.clone();
    let engine = tokio::spawn(async move {
        let held = working.call(move |_| {
            let _ = begun.send(());
            // Until the test is over, whatever its end is.
            let _ = work.recv();
            Ok(())
        });
        held.await
    });
    at_work.await.unwrap();
    // The names from before have grown old.
    sleep(Duration::from_millis(1_100)).await;
    for round in 1..=3 {
        ring(&bench, 5_000);
        let all = 10 + round * 5_000;
        assert!(read(&traffic, all).await, "{} of {all}", traffic.sizes().samples);
    }
    drop(done);
    engine.await.unwrap().unwrap();
    let _ = stop.send(true);
    reader.await.unwrap().unwrap();
}
