/work/main/drbd-backend/fuzz/target/debug/deps/replication-0be54ef9326a4040.d: /work/main/drbd-backend/replication/src/lib.rs /work/main/drbd-backend/replication/src/activity.rs /work/main/drbd-backend/replication/src/agreement.rs /work/main/drbd-backend/replication/src/barrier.rs /work/main/drbd-backend/replication/src/bits.rs /work/main/drbd-backend/replication/src/checksum.rs /work/main/drbd-backend/replication/src/clock.rs /work/main/drbd-backend/replication/src/codec.rs /work/main/drbd-backend/replication/src/codec/control.rs /work/main/drbd-backend/replication/src/codec/reader.rs /work/main/drbd-backend/replication/src/codec/record.rs /work/main/drbd-backend/replication/src/control.rs /work/main/drbd-backend/replication/src/disk.rs /work/main/drbd-backend/replication/src/effect.rs /work/main/drbd-backend/replication/src/event.rs /work/main/drbd-backend/replication/src/flow.rs /work/main/drbd-backend/replication/src/layout.rs /work/main/drbd-backend/replication/src/layout/bitmap.rs /work/main/drbd-backend/replication/src/layout/load.rs /work/main/drbd-backend/replication/src/layout/page.rs /work/main/drbd-backend/replication/src/layout/pages.rs /work/main/drbd-backend/replication/src/layout/superblock.rs /work/main/drbd-backend/replication/src/layout/writes.rs /work/main/drbd-backend/replication/src/membership.rs /work/main/drbd-backend/replication/src/message.rs /work/main/drbd-backend/replication/src/metadata.rs /work/main/drbd-backend/replication/src/names.rs /work/main/drbd-backend/replication/src/note.rs /work/main/drbd-backend/replication/src/peer.rs /work/main/drbd-backend/replication/src/primary.rs /work/main/drbd-backend/replication/src/promotion.rs /work/main/drbd-backend/replication/src/record.rs /work/main/drbd-backend/replication/src/resync.rs /work/main/drbd-backend/replication/src/secondary.rs /work/main/drbd-backend/replication/src/session.rs /work/main/drbd-backend/replication/src/settings.rs /work/main/drbd-backend/replication/src/status.rs /work/main/drbd-backend/replication/src/table.rs /work/main/drbd-backend/replication/src/why.rs /work/main/drbd-backend/replication/src/wire.rs /work/main/drbd-backend/replication/src/wire/body.rs /work/main/drbd-backend/replication/src/wire/frame.rs /work/main/drbd-backend/replication/src/wire/kind.rs /work/main/drbd-backend/replication/src/wire/preamble.rs

/work/main/drbd-backend/fuzz/target/debug/deps/libreplication-0be54ef9326a4040.rmeta: /work/main/drbd-backend/replication/src/lib.rs /work/main/drbd-backend/replication/src/activity.rs /work/main/drbd-backend/replication/src/agreement.rs /work/main/drbd-backend/replication/src/barrier.rs /work/main/drbd-backend/replication/src/bits.rs /work/main/drbd-backend/replication/src/checksum.rs /work/main/drbd-backend/replication/src/clock.rs /work/main/drbd-backend/replication/src/codec.rs /work/main/drbd-backend/replication/src/codec/control.rs /work/main/drbd-backend/replication/src/codec/reader.rs /work/main/drbd-backend/replication/src/codec/record.rs /work/main/drbd-backend/replication/src/control.rs /work/main/drbd-backend/replication/src/disk.rs /work/main/drbd-backend/replication/src/effect.rs /work/main/drbd-backend/replication/src/event.rs /work/main/drbd-backend/replication/src/flow.rs /work/main/drbd-backend/replication/src/layout.rs /work/main/drbd-backend/replication/src/layout/bitmap.rs /work/main/drbd-backend/replication/src/layout/load.rs /work/main/drbd-backend/replication/src/layout/page.rs /work/main/drbd-backend/replication/src/layout/pages.rs /work/main/drbd-backend/replication/src/layout/superblock.rs /work/main/drbd-backend/replication/src/layout/writes.rs /work/main/drbd-backend/replication/src/membership.rs /work/main/drbd-backend/replication/src/message.rs /work/main/drbd-backend/replication/src/metadata.rs /work/main/drbd-backend/replication/src/names.rs /work/main/drbd-backend/replication/src/note.rs /work/main/drbd-backend/replication/src/peer.rs /work/main/drbd-backend/replication/src/primary.rs /work/main/drbd-backend/replication/src/promotion.rs /work/main/drbd-backend/replication/src/record.rs /work/main/drbd-backend/replication/src/resync.rs /work/main/drbd-backend/replication/src/secondary.rs /work/main/drbd-backend/replication/src/session.rs /work/main/drbd-backend/replication/src/settings.rs /work/main/drbd-backend/replication/src/status.rs /work/main/drbd-backend/replication/src/table.rs /work/main/drbd-backend/replication/src/why.rs /work/main/drbd-backend/replication/src/wire.rs /work/main/drbd-backend/replication/src/wire/body.rs /work/main/drbd-backend/replication/src/wire/frame.rs /work/main/drbd-backend/replication/src/wire/kind.rs /work/main/drbd-backend/replication/src/wire/preamble.rs

/work/main/drbd-backend/replication/src/lib.rs:
/work/main/drbd-backend/replication/src/activity.rs:
/work/main/drbd-backend/replication/src/agreement.rs:
/work/main/drbd-backend/replication/src/barrier.rs:
/work/main/drbd-backend/replication/src/bits.rs:
/work/main/drbd-backend/replication/src/checksum.rs:
/work/main/drbd-backend/replication/src/clock.rs:
/work/main/drbd-backend/replication/src/codec.rs:
/work/main/drbd-backend/replication/src/codec/control.rs:
/work/main/drbd-backend/replication/src/codec/reader.rs:
/work/main/drbd-backend/replication/src/codec/record.rs:
/work/main/drbd-backend/replication/src/control.rs:
/work/main/drbd-backend/replication/src/disk.rs:
/work/main/drbd-backend/replication/src/effect.rs:
/work/main/drbd-backend/replication/src/event.rs:
/work/main/drbd-backend/replication/src/flow.rs:
/work/main/drbd-backend/replication/src/layout.rs:
/work/main/drbd-backend/replication/src/layout/bitmap.rs:
/work/main/drbd-backend/replication/src/layout/load.rs:
/work/main/drbd-backend/replication/src/layout/page.rs:
/work/main/drbd-backend/replication/src/layout/pages.rs:
/work/main/drbd-backend/replication/src/layout/superblock.rs:
/work/main/drbd-backend/replication/src/layout/writes.rs:
/work/main/drbd-backend/replication/src/membership.rs:
/work/main/drbd-backend/replication/src/message.rs:
/work/main/drbd-backend/replication/src/metadata.rs:
/work/main/drbd-backend/replication/src/names.rs:
/work/main/drbd-backend/replication/src/note.rs:
/work/main/drbd-backend/replication/src/peer.rs:
/work/main/drbd-backend/replication/src/primary.rs:
/work/main/drbd-backend/replication/src/promotion.rs:
/work/main/drbd-backend/replication/src/record.rs:
/work/main/drbd-backend/replication/src/resync.rs:
/work/main/drbd-backend/replication/src/secondary.rs:
/work/main/drbd-backend/replication/src/session.rs:
/work/main/drbd-backend/replication/src/settings.rs:
/work/main/drbd-backend/replication/src/status.rs:
/work/main/drbd-backend/replication/src/table.rs:
/work/main/drbd-backend/replication/src/why.rs:
/work/main/drbd-backend/replication/src/wire.rs:
/work/main/drbd-backend/replication/src/wire/body.rs:
/work/main/drbd-backend/replication/src/wire/frame.rs:
/work/main/drbd-backend/replication/src/wire/kind.rs:
/work/main/drbd-backend/replication/src/wire/preamble.rs:
