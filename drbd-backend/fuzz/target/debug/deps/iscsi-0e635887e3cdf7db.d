/work/main/drbd-backend/fuzz/target/debug/deps/iscsi-0e635887e3cdf7db.d: /work/main/drbd-backend/iscsi/src/lib.rs /work/main/drbd-backend/iscsi/src/bytes.rs /work/main/drbd-backend/iscsi/src/discovery.rs /work/main/drbd-backend/iscsi/src/login.rs /work/main/drbd-backend/iscsi/src/login/chap.rs /work/main/drbd-backend/iscsi/src/login/keys.rs /work/main/drbd-backend/iscsi/src/pdu.rs /work/main/drbd-backend/iscsi/src/scsi.rs /work/main/drbd-backend/iscsi/src/scsi/copy.rs /work/main/drbd-backend/iscsi/src/scsi/inquiry.rs /work/main/drbd-backend/iscsi/src/scsi/mode.rs /work/main/drbd-backend/iscsi/src/scsi/operation.rs /work/main/drbd-backend/iscsi/src/scsi/report.rs /work/main/drbd-backend/iscsi/src/scsi/reservation.rs /work/main/drbd-backend/iscsi/src/scsi/sense.rs /work/main/drbd-backend/iscsi/src/scsi/unit.rs /work/main/drbd-backend/iscsi/src/session.rs /work/main/drbd-backend/iscsi/src/session/task.rs /work/main/drbd-backend/iscsi/src/target.rs /work/main/drbd-backend/iscsi/src/text.rs

/work/main/drbd-backend/fuzz/target/debug/deps/libiscsi-0e635887e3cdf7db.rmeta: /work/main/drbd-backend/iscsi/src/lib.rs /work/main/drbd-backend/iscsi/src/bytes.rs /work/main/drbd-backend/iscsi/src/discovery.rs /work/main/drbd-backend/iscsi/src/login.rs /work/main/drbd-backend/iscsi/src/login/chap.rs /work/main/drbd-backend/iscsi/src/login/keys.rs /work/main/drbd-backend/iscsi/src/pdu.rs /work/main/drbd-backend/iscsi/src/scsi.rs /work/main/drbd-backend/iscsi/src/scsi/copy.rs /work/main/drbd-backend/iscsi/src/scsi/inquiry.rs /work/main/drbd-backend/iscsi/src/scsi/mode.rs /work/main/drbd-backend/iscsi/src/scsi/operation.rs /work/main/drbd-backend/iscsi/src/scsi/report.rs /work/main/drbd-backend/iscsi/src/scsi/reservation.rs /work/main/drbd-backend/iscsi/src/scsi/sense.rs /work/main/drbd-backend/iscsi/src/scsi/unit.rs /work/main/drbd-backend/iscsi/src/session.rs /work/main/drbd-backend/iscsi/src/session/task.rs /work/main/drbd-backend/iscsi/src/target.rs /work/main/drbd-backend/iscsi/src/text.rs

/work/main/drbd-backend/iscsi/src/lib.rs:
/work/main/drbd-backend/iscsi/src/bytes.rs:
/work/main/drbd-backend/iscsi/src/discovery.rs:
/work/main/drbd-backend/iscsi/src/login.rs:
/work/main/drbd-backend/iscsi/src/login/chap.rs:
/work/main/drbd-backend/iscsi/src/login/keys.rs:
/work/main/drbd-backend/iscsi/src/pdu.rs:
/work/main/drbd-backend/iscsi/src/scsi.rs:
/work/main/drbd-backend/iscsi/src/scsi/copy.rs:
/work/main/drbd-backend/iscsi/src/scsi/inquiry.rs:
/work/main/drbd-backend/iscsi/src/scsi/mode.rs:
/work/main/drbd-backend/iscsi/src/scsi/operation.rs:
/work/main/drbd-backend/iscsi/src/scsi/report.rs:
/work/main/drbd-backend/iscsi/src/scsi/reservation.rs:
/work/main/drbd-backend/iscsi/src/scsi/sense.rs:
/work/main/drbd-backend/iscsi/src/scsi/unit.rs:
/work/main/drbd-backend/iscsi/src/session.rs:
/work/main/drbd-backend/iscsi/src/session/task.rs:
/work/main/drbd-backend/iscsi/src/target.rs:
/work/main/drbd-backend/iscsi/src/text.rs:
