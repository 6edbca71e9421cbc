extension Schema {
  /// Providers' flavors, recruiters, and the hosts that were rented.
  static let third = """
    -- This server's own word in the tags of its hosts: those of other servers are not touched.
    CREATE TABLE server (id TEXT NOT NULL) STRICT;
    INSERT INTO server VALUES (lower(hex(randomblob(4))));

    CREATE TABLE worker_of_fleet (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      name TEXT NOT NULL,
      store_id TEXT NOT NULL,
      credential_hash TEXT,
      status TEXT NOT NULL
        CHECK (status IN ('deploying', 'running', 'offline', 'draining', 'lost', 'deleted')),
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
      last_beat_at INTEGER NOT NULL,
      scope TEXT NOT NULL DEFAULT 'N' CHECK (scope IN ('N', 'T', 'W', 'G')),
      -- What a person, or its failures, want of it.
      wish TEXT CHECK (wish IN ('drain', 'pause', 'quarantine')),
      wish_reason TEXT,
      -- Its concurrency and prefetch were set here: what its agent says of them does not count.
      configured INTEGER NOT NULL DEFAULT 0 CHECK (configured IN (0, 1)),
      -- The host that was rented for it.
      instance_id INTEGER,
      -- The recruiter, of its step, whose maximum it counts for.
      rank INTEGER,
      -- When its host will be taken away.
      ends_at INTEGER
    ) STRICT;
    INSERT INTO worker_of_fleet (id, name, store_id, credential_hash, status, epoch, concurrency, prefetch, permanent,
      step_id, hostname, ipv4, ipv6, cpu, memory_bytes, disk_bytes, gpu, engines, software, created_at, last_beat_at,
      scope, wish, wish_reason, configured)
    SELECT id, name, store_id, credential_hash, status, epoch, concurrency, prefetch, permanent, step_id, hostname,
      ipv4, ipv6, cpu, memory_bytes, disk_bytes, gpu, engines, software, created_at, last_beat_at, scope, wish,
      wish_reason, configured FROM worker;
    DROP TABLE worker;
    ALTER TABLE worker_of_fleet RENAME TO worker;
    CREATE UNIQUE INDEX worker_name ON worker (name) WHERE status <> 'deleted';
    CREATE UNIQUE INDEX worker_store ON worker (store_id) WHERE status <> 'deleted';

    -- A region of a provider: what was learned of it.
    CREATE TABLE region (
      provider TEXT NOT NULL,
      name TEXT NOT NULL,
      -- When its flavors were last read.
      refreshed_at INTEGER,
      -- Why nothing is bought there, and until when.
      problem_class TEXT,
      problem TEXT,
      blocked_until INTEGER,
      -- How often in a row it did not do what it was asked.
      failures INTEGER NOT NULL DEFAULT 0,
      -- How many hosts its account may have, as far as that was found out, and until when that is believed.
      learned_instances INTEGER,
      learned_until INTEGER,
      PRIMARY KEY (provider, name)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE flavor (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      provider TEXT NOT NULL,
      region TEXT NOT NULL,
      name TEXT NOT NULL,
      spot INTEGER NOT NULL CHECK (spot IN (0, 1)),
      cpu REAL NOT NULL,
      memory REAL NOT NULL,
      disk REAL NOT NULL,
      bandwidth REAL NOT NULL,
      gpu TEXT NOT NULL,
      gpu_count INTEGER NOT NULL,
      gpu_memory REAL NOT NULL,
      quick_disks INTEGER NOT NULL CHECK (quick_disks IN (0, 1)),
      eviction REAL NOT NULL,
      price REAL NOT NULL,
      -- Its provider does not offer it any more; kept for the hosts that are of it.
      gone INTEGER NOT NULL DEFAULT 0 CHECK (gone IN (0, 1)),
      -- By an operator.
      disabled INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
      blocked_until INTEGER,
      block_reason TEXT,
      block_count INTEGER NOT NULL DEFAULT 0,
      -- What workers on it really had.
      seen_memory_mib INTEGER,
      seen_disk_mib INTEGER,
      -- Our own record: hosts that have ended, and those of them that their provider took back.
      ended INTEGER NOT NULL DEFAULT 0,
      taken_back INTEGER NOT NULL DEFAULT 0,
      UNIQUE (provider, region, name, spot)
    ) STRICT;

    CREATE TABLE recruiter (
      step_id INTEGER NOT NULL REFERENCES step ON DELETE CASCADE,
      rank INTEGER NOT NULL CHECK (rank > 0),
      filter TEXT NOT NULL,
      -- Null: adaptive.
      concurrency INTEGER,
      cpu_per_task REAL,
      memory_per_task REAL,
      disk_per_task REAL,
      concurrency_min INTEGER,
      concurrency_max INTEGER,
      prefetch INTEGER NOT NULL,
      prefetch_percent INTEGER,
      maximum_workers INTEGER,
      rounds INTEGER NOT NULL CHECK (rounds > 0),
      timeout INTEGER NOT NULL CHECK (timeout >= 0),
      need_since INTEGER,
      bought_at INTEGER,
      PRIMARY KEY (step_id, rank)
    ) STRICT, WITHOUT ROWID;

    -- What was asked of a provider, and what became of it. Written before the provider is called.
    CREATE TABLE instance (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      -- The tag of the host.
      key TEXT NOT NULL UNIQUE,
      flavor_id INTEGER NOT NULL REFERENCES flavor,
      worker_id INTEGER NOT NULL,
      user_id INTEGER NOT NULL,
      state TEXT NOT NULL CHECK (state IN ('ordered', 'deployed', 'ended')),
      -- The provider's own name for it, where it is known.
      reference TEXT NOT NULL DEFAULT '',
      address TEXT NOT NULL DEFAULT '',
      -- An hour's.
      price REAL NOT NULL,
      -- It is to be returned, or not to be made.
      unwanted INTEGER NOT NULL DEFAULT 0 CHECK (unwanted IN (0, 1)),
      -- It stands still by its provider's will.
      suspended INTEGER NOT NULL DEFAULT 0 CHECK (suspended IN (0, 1)),
      attempts INTEGER NOT NULL DEFAULT 0,
      next_attempt_at INTEGER,
      problem_class TEXT,
      problem TEXT,
      created_at INTEGER NOT NULL,
      deployed_at INTEGER,
      joined_at INTEGER,
      worked INTEGER NOT NULL DEFAULT 0 CHECK (worked IN (0, 1)),
      ends_at INTEGER,
      ended_at INTEGER
    ) STRICT;
    CREATE INDEX instance_live ON instance (id) WHERE state <> 'ended';

    -- Which step a host was paid for, and when: what costs are added up from.
    CREATE TABLE instance_use (
      instance_id INTEGER NOT NULL REFERENCES instance,
      -- 0: none.
      step_id INTEGER NOT NULL,
      started_at INTEGER NOT NULL,
      ended_at INTEGER,
      PRIMARY KEY (instance_id, started_at)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX instance_use_step ON instance_use (step_id);

    ALTER TABLE workflow ADD COLUMN maximum_cost REAL;
    ALTER TABLE task_spec ADD COLUMN time_estimate_ms INTEGER NOT NULL DEFAULT 0;
    """

  /// What hosts turned out to be, how long they have been idle, and whose money it was.
  static let fourth = """
    -- What the last host of it had that joined, and when.
    ALTER TABLE flavor ADD COLUMN seen_cpu_milli INTEGER;
    ALTER TABLE flavor ADD COLUMN seen_gpu INTEGER;
    ALTER TABLE flavor ADD COLUMN seen_engines TEXT;
    ALTER TABLE flavor ADD COLUMN seen_seconds INTEGER;
    ALTER TABLE flavor ADD COLUMN seen_at INTEGER;
    ALTER TABLE instance ADD COLUMN idle_since INTEGER;
    -- 0: none. It stays when the step is deleted.
    ALTER TABLE instance_use ADD COLUMN workflow_id INTEGER NOT NULL DEFAULT 0;
    UPDATE instance_use
      SET workflow_id = coalesce((SELECT workflow_id FROM step WHERE step.id = instance_use.step_id), 0);
    CREATE INDEX instance_use_workflow ON instance_use (workflow_id);
    """
}
