/** One job at a time, and then the newest that came meanwhile: what lies between is never asked. */

export class Latest<Job> {
  private running = false;
  private next: Job | null = null;

  /** `work` settles its own errors. */
  constructor(private readonly work: (job: Job) => Promise<void>) {}

  submit(job: Job): void {
    this.next = job;
    if (!this.running) void this.run();
  }

  /** Forget the job that waits. */
  clear(): void {
    this.next = null;
  }

  private async run(): Promise<void> {
    this.running = true;
    try {
      for (let job = this.take(); job !== null; job = this.take()) await this.work(job);
    } finally {
      this.running = false;
    }
  }

  private take(): Job | null {
    const job = this.next;
    this.next = null;
    return job;
  }
}
