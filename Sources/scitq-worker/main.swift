import ScitqWorker

await WorkerProgram.main()
