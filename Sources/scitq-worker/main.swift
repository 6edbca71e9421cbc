import ScitqWorker

WorkerProgram.main()
