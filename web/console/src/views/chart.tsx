/** A line through values, the latest at the right. It is drawn for eyes; label says the same in words. */
export function Line({ values, label, top }: { values: number[]; label: string; top?: number }) {
  const width = 300
  const height = 40
  const most = Math.max(top ?? 0, ...values, 1e-9)
  const from = width - values.length + 1
  const points = values.map((v, i) => `${from + i},${(height - 1 - (v / most) * (height - 2)).toFixed(1)}`).join(' ')
  return (
    <svg class="line" viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label={label}>
      <polyline points={points} />
    </svg>
  )
}

/** A bar for each of the last 60 values. */
export function Bars({ values, label }: { values: number[]; label: string }) {
  const most = Math.max(...values, 1)
  return (
    <svg class="bars" viewBox="0 0 120 20" role="img" aria-label={label}>
      {values.map((v, i) => {
        const height = (v / most) * 20
        return <rect key={i} x={(60 - values.length + i) * 2} y={20 - height} width="1.5" height={height} />
      })}
    </svg>
  )
}
