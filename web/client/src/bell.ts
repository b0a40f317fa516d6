/** Something that others wait for, again and again. */
export class Bell {
  /** Resolves when it rings next. */
  next!: Promise<void>
  #resolve: (() => void) | undefined

  constructor() {
    this.ring()
  }

  /** Wakes all that wait, in the order in which they came. */
  ring(): void {
    this.#resolve?.()
    this.next = new Promise((resolve) => (this.#resolve = resolve))
  }
}
