import GRDB

/// The tables, as people meet them in `sqlite3`. Times are integer microseconds UTC.
///
/// A migration is never edited once it has landed: another one follows it.
enum Schema {
  static var migrator: DatabaseMigrator {
    var migrator = DatabaseMigrator()
    migrator.registerMigration("1: users, workers, tasks, events") { db in
      try db.execute(sql: first)
    }
    migrator.registerMigration("2: workflows, steps, jobs, suspension, roles") { db in
      try db.execute(sql: second)
    }
    migrator.registerMigration("3: flavors, recruiters, rented hosts, costs") { db in
      try db.execute(sql: third)
    }
    migrator.registerMigration("4: what hosts turned out to be") { db in
      try db.execute(sql: fourth)
    }
    return migrator
  }

  private static let first = """
    CREATE TABLE user (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      username TEXT NOT NULL UNIQUE,
      email TEXT NOT NULL,
      password TEXT NOT NULL,
      admin INTEGER NOT NULL CHECK (admin IN (0, 1)),
      created_at INTEGER NOT NULL
    ) STRICT;

    -- What a user logged in with. The token itself is kept nowhere.
    CREATE TABLE session (
      token_hash TEXT PRIMARY KEY,
      user_id INTEGER NOT NULL REFERENCES user ON DELETE CASCADE,
      created_at INTEGER NOT NULL,
      expires_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX session_user ON session (user_id);

    CREATE TABLE worker (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      name TEXT NOT NULL,
      store_id TEXT NOT NULL,
      credential_hash TEXT,
      status TEXT NOT NULL CHECK (status IN ('running', 'offline', 'draining', 'lost', 'deleted')),
      epoch INTEGER NOT NULL,
      concurrency INTEGER NOT NULL,
      prefetch INTEGER NOT NULL,
      permanent INTEGER NOT NULL CHECK (permanent IN (0, 1)),
      step_id INTEGER,
      hostname TEXT NOT NULL,
      ipv4 TEXT NOT NULL,
      ipv6 TEXT NOT NULL,
      cpu REAL NOT NULL,
      memory_bytes INTEGER NOT NULL,
      disk_bytes INTEGER NOT NULL,
      gpu INTEGER NOT NULL,
      engines TEXT NOT NULL,
      software TEXT NOT NULL,
      created_at INTEGER NOT NULL,
      last_beat_at INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX worker_name ON worker (name) WHERE status <> 'deleted';
    CREATE UNIQUE INDEX worker_store ON worker (store_id) WHERE status <> 'deleted';

    -- How far each worker's reports have been taken in: a report that comes twice is known by it.
    CREATE TABLE outbox_ack (
      worker_id INTEGER PRIMARY KEY REFERENCES worker ON DELETE CASCADE,
      sequence INTEGER NOT NULL
    ) STRICT;

    -- What is to be run. Never changed; many tasks may share one.
    CREATE TABLE task_spec (
      id INTEGER PRIMARY KEY,
      command TEXT NOT NULL,
      container TEXT NOT NULL,
      shell TEXT NOT NULL,
      inputs TEXT NOT NULL,
      resources TEXT NOT NULL,
      output TEXT NOT NULL,
      env TEXT NOT NULL,
      container_options TEXT NOT NULL,
      cpu REAL NOT NULL,
      memory_bytes INTEGER NOT NULL,
      disk_bytes INTEGER NOT NULL,
      gpu INTEGER NOT NULL,
      download_timeout_ms INTEGER NOT NULL,
      run_timeout_ms INTEGER NOT NULL,
      upload_timeout_ms INTEGER NOT NULL,
      publish TEXT NOT NULL,
      publish_move INTEGER NOT NULL CHECK (publish_move IN (0, 1)),
      skip_if_exists INTEGER NOT NULL CHECK (skip_if_exists IN (0, 1))
    ) STRICT;

    CREATE TABLE task (
      id INTEGER PRIMARY KEY,
      spec_id INTEGER NOT NULL REFERENCES task_spec,
      name TEXT NOT NULL,
      owner_id INTEGER NOT NULL,
      step_id INTEGER,
      status TEXT NOT NULL
        CHECK (status IN ('I', 'W', 'P', 'A', 'C', 'D', 'O', 'R', 'U', 'V', 'S', 'F', 'Z', 'X')),
      priority INTEGER NOT NULL,
      weight_milli INTEGER NOT NULL CHECK (weight_milli > 0),
      place INTEGER NOT NULL,
      unmet INTEGER NOT NULL CHECK (unmet >= 0),
      worker_id INTEGER REFERENCES worker,
      assignment INTEGER NOT NULL,
      avoid_worker_id INTEGER,
      retry INTEGER NOT NULL CHECK (retry >= 0),
      attempt INTEGER NOT NULL,
      losses INTEGER NOT NULL,
      previous_task_id INTEGER,
      next_task_id INTEGER,
      hidden INTEGER NOT NULL CHECK (hidden IN (0, 1)),
      accept_failure INTEGER NOT NULL CHECK (accept_failure IN (0, 1)),
      cancel_with_prerequisite INTEGER NOT NULL CHECK (cancel_with_prerequisite IN (0, 1)),
      cancel_requested INTEGER NOT NULL CHECK (cancel_requested IN (0, 1)),
      -- Whether it is still to be looked at whether its output exists: one of what is unmet.
      unchecked INTEGER NOT NULL CHECK (unchecked IN (0, 1)),
      reason TEXT,
      message TEXT,
      exit_code INTEGER,
      out_bytes INTEGER NOT NULL,
      err_bytes INTEGER NOT NULL,
      inputs TEXT,
      outputs TEXT,
      created_at INTEGER NOT NULL,
      assigned_at INTEGER,
      download_started_at INTEGER,
      run_started_at INTEGER,
      run_ended_at INTEGER,
      ended_at INTEGER
    ) STRICT;
    -- Most tasks end well, and nobody looks for those by their status: the newest are met at once.
    CREATE INDEX task_status ON task (status, id) WHERE status <> 'S';
    CREATE INDEX task_worker ON task (worker_id, id) WHERE worker_id IS NOT NULL;
    CREATE INDEX task_step ON task (step_id, id) WHERE step_id IS NOT NULL;

    CREATE TABLE dependency (
      task_id INTEGER NOT NULL REFERENCES task,
      prerequisite_id INTEGER NOT NULL REFERENCES task,
      met INTEGER NOT NULL CHECK (met IN (0, 1)),
      PRIMARY KEY (task_id, prerequisite_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX dependency_prerequisite ON dependency (prerequisite_id) WHERE met = 0;

    -- How many tasks stand where, by step (0: no step). Kept by the transaction that moves them; hidden ones apart.
    CREATE TABLE task_count (
      step_id INTEGER NOT NULL,
      status TEXT NOT NULL,
      hidden INTEGER NOT NULL,
      count INTEGER NOT NULL CHECK (count >= 0),
      PRIMARY KEY (step_id, status, hidden)
    ) STRICT, WITHOUT ROWID;

    -- Everything that ever happened. One row may stand for a run of consecutive ids to which the same happened at once.
    CREATE TABLE event (
      sequence INTEGER PRIMARY KEY AUTOINCREMENT,
      at INTEGER NOT NULL,
      object TEXT NOT NULL,
      first_id INTEGER NOT NULL,
      last_id INTEGER NOT NULL,
      from_status TEXT,
      to_status TEXT NOT NULL,
      worker_id INTEGER,
      user_id INTEGER,
      reason TEXT
    ) STRICT;

    -- A creation that a client sends twice is done once.
    CREATE TABLE idempotency (
      user_id INTEGER NOT NULL,
      key TEXT NOT NULL,
      first_id INTEGER NOT NULL,
      count INTEGER NOT NULL,
      created_at INTEGER NOT NULL,
      PRIMARY KEY (user_id, key)
    ) STRICT, WITHOUT ROWID;
    """

  private static let second = """
    CREATE TABLE workflow (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      name TEXT NOT NULL,
      owner_id INTEGER NOT NULL,
      strategy TEXT NOT NULL CHECK (strategy IN ('B', 'T', 'D', 'Z')),
      -- What people decided; how far it has come is in the counts of its steps.
      state TEXT NOT NULL CHECK (state IN ('draft', 'running', 'suspended', 'canceled')),
      maximum_workers INTEGER NOT NULL CHECK (maximum_workers >= 0),
      weight_milli INTEGER NOT NULL CHECK (weight_milli > 0),
      created_at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX workflow_name ON workflow (name);

    CREATE TABLE step (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      workflow_id INTEGER NOT NULL REFERENCES workflow,
      name TEXT NOT NULL,
      suspended INTEGER NOT NULL CHECK (suspended IN (0, 1)),
      created_at INTEGER NOT NULL,
      UNIQUE (workflow_id, name)
    ) STRICT;

    -- How long the phases of a step's attempts took, in microseconds. Kept by the transaction that ends the phase.
    CREATE TABLE phase_count (
      step_id INTEGER NOT NULL,
      phase TEXT NOT NULL CHECK (phase IN ('download', 'run_succeeded', 'run_failed', 'upload')),
      count INTEGER NOT NULL,
      total INTEGER NOT NULL,
      least INTEGER NOT NULL,
      most INTEGER NOT NULL,
      -- Of the first phase that began and the last that ended.
      started_at INTEGER NOT NULL,
      ended_at INTEGER NOT NULL,
      PRIMARY KEY (step_id, phase)
    ) STRICT, WITHOUT ROWID;

    -- Tasks that were submitted as one. Ids are from the same row of numbers as those of tasks.
    CREATE TABLE job (
      id INTEGER PRIMARY KEY,
      kind TEXT NOT NULL CHECK (kind IN ('array', 'split')),
      name TEXT NOT NULL,
      owner_id INTEGER NOT NULL,
      step_id INTEGER,
      size INTEGER NOT NULL CHECK (size > 0),
      first_index INTEGER NOT NULL,
      stride INTEGER NOT NULL,
      created_at INTEGER NOT NULL
    ) STRICT;

    -- How many tasks of a job stand where; attempts that were replaced are not counted.
    CREATE TABLE job_count (
      job_id INTEGER NOT NULL,
      status TEXT NOT NULL,
      count INTEGER NOT NULL CHECK (count >= 0),
      PRIMARY KEY (job_id, status)
    ) STRICT, WITHOUT ROWID;

    ALTER TABLE task ADD COLUMN job_id INTEGER;
    ALTER TABLE task ADD COLUMN array_index INTEGER;
    -- What is its own of an array's spec, as JSON.
    ALTER TABLE task ADD COLUMN parameters TEXT;
    -- Who wants it suspended: 1 a person, by the task itself; 2 its step; 4 its workflow; 8 its worker; 16 to be
    -- given up, so that a clone waits.
    ALTER TABLE task ADD COLUMN suspend_wish INTEGER NOT NULL DEFAULT 0;
    -- Since when its command stands still, and for how long it did before.
    ALTER TABLE task ADD COLUMN suspended_at INTEGER;
    ALTER TABLE task ADD COLUMN suspended_for INTEGER NOT NULL DEFAULT 0;
    -- In a workflow that is being debugged: somebody said that it may run.
    ALTER TABLE task ADD COLUMN released INTEGER NOT NULL DEFAULT 0 CHECK (released IN (0, 1));
    ALTER TABLE task ADD COLUMN ready_at INTEGER;
    ALTER TABLE task ADD COLUMN not_before INTEGER;
    -- What retries have made of the memory in its spec, in thousandths.
    ALTER TABLE task ADD COLUMN memory_milli INTEGER NOT NULL DEFAULT 1000;
    -- The worker that holds what it reads.
    ALTER TABLE task ADD COLUMN prefer_worker_id INTEGER;
    CREATE INDEX task_spec_use ON task (spec_id);
    CREATE INDEX task_job ON task (job_id, array_index) WHERE job_id IS NOT NULL;
    UPDATE task SET ready_at = created_at WHERE status NOT IN ('I', 'W', 'X');

    ALTER TABLE task_spec ADD COLUMN queue_timeout_ms INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE task_spec ADD COLUMN retry_rules TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE task_spec ADD COLUMN retry_delay_ms INTEGER NOT NULL DEFAULT 0;

    -- What is waited for may be a job.
    CREATE TABLE dependency_of_any (
      task_id INTEGER NOT NULL REFERENCES task,
      prerequisite_id INTEGER NOT NULL,
      met INTEGER NOT NULL CHECK (met IN (0, 1)),
      PRIMARY KEY (task_id, prerequisite_id)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO dependency_of_any SELECT * FROM dependency;
    DROP TABLE dependency;
    ALTER TABLE dependency_of_any RENAME TO dependency;
    CREATE INDEX dependency_prerequisite ON dependency (prerequisite_id) WHERE met = 0;

    ALTER TABLE worker ADD COLUMN scope TEXT NOT NULL DEFAULT 'N' CHECK (scope IN ('N', 'T', 'W', 'G'));
    -- What a person, or its failures, want of it.
    ALTER TABLE worker ADD COLUMN wish TEXT CHECK (wish IN ('drain', 'pause', 'quarantine'));
    ALTER TABLE worker ADD COLUMN wish_reason TEXT;
    -- Its concurrency and prefetch were set here: what its agent says of them does not count.
    ALTER TABLE worker ADD COLUMN configured INTEGER NOT NULL DEFAULT 0 CHECK (configured IN (0, 1));

    ALTER TABLE user ADD COLUMN role TEXT NOT NULL DEFAULT 'user' CHECK (role IN ('admin', 'user', 'read-only'));
    ALTER TABLE user ADD COLUMN weight_milli INTEGER NOT NULL DEFAULT 1000 CHECK (weight_milli > 0);
    ALTER TABLE user ADD COLUMN maximum_running INTEGER;
    ALTER TABLE user ADD COLUMN maximum_cpu_milli INTEGER;
    UPDATE user SET role = 'admin' WHERE admin = 1;
    ALTER TABLE user DROP COLUMN admin;

    -- Numbers that were given to what is deleted now, so that they are not given again.
    CREATE TABLE given (
      kind TEXT PRIMARY KEY,
      last INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- Most events are of tasks, and those are found by the time of the task.
    CREATE INDEX event_object ON event (object, first_id) WHERE object <> 'task';
    """
}
