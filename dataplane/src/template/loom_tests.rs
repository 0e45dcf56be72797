use super::*;
use loom::sync::Arc;
use loom::thread;

fn key(client: u32) -> TemplateKey {
    TemplateKey::new(
        6,
        Ipv4Addr::from_bits(client),
        crate::snapshot::ClientMask::HOST_V4,
        Ipv4Addr::LOCALHOST,
        80,
    )
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    let runs = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = runs.clone();
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        check();
    });
    println!("{} interleavings", runs.load(Relaxed));
}

/// Two workers make the same template: both end with the same destination, unless one gives up.
#[test]
fn one_destination_wins() {
    model(|| {
        let table = Arc::new(Templates::new(2, 99));
        let work = |table: Arc<Templates>, destination: u32| {
            move || table.insert(&key(1), DestinationSlot(destination), 1000, Ticks(0))
        };
        let other = thread::spawn(work(table.clone(), 1));
        let mine = work(table.clone(), 2)();
        match (mine, other.join().unwrap()) {
            (Ok((_, mine, made)), Ok((_, other, also_made))) => {
                assert!(mine == other && made != also_made);
            }
            (Ok((.., made)), Err(TemplateError::Busy)) | (Err(TemplateError::Busy), Ok((.., made))) => {
                assert!(made);
            }
            both => assert_eq!(both, (Err(TemplateError::Busy), Err(TemplateError::Busy))),
        }
        assert!(table.len() <= 1);
    });
}

/// A connection is counted while the sweep frees the entry and its next tenant moves in: the handle of the old template never
/// counts on the new one, and a reader never takes one key's destination for another's.
#[test]
fn a_handle_is_good_for_one_template() {
    model(|| {
        let table = Arc::new(Templates::new(1, 99));
        let (old, ..) = table.insert(&key(1), DestinationSlot(1), 1000, Ticks(0)).unwrap();
        // The reader is the spawned thread: the model lets it see any store that did not happen before it was spawned.
        let reader = {
            let table = table.clone();
            thread::spawn(move || {
                if let Some((handle, destination)) = table.find(&key(1), Ticks(999)) {
                    assert_eq!((handle, destination.0), (old, 1));
                }
                table.attach(old)
            })
        };
        let freed = table.sweep(Ticks(1000), 1, &mut |destination| assert_eq!(destination.0, 1));
        let made = table.insert(&key(2), DestinationSlot(2), 1000, Ticks(1000)).is_ok();
        let attached = reader.join().unwrap();
        assert_eq!((freed == 0, made), (attached, freed == 1));
        if made {
            let (_, destination) = table.find(&key(2), Ticks(1000)).unwrap();
            assert_eq!(destination.0, 2);
            assert!(table.list(0, 1, Ticks(1000)).0[0].controlled == 0);
        }
    });
}
