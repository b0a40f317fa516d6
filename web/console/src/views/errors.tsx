import { closes, errors } from '../codes.js'
import { Panel } from './parts.js'

/** The tables of docs/protocol.md, section 6. */
export function Errors() {
  return (
    <>
      <Panel title="Error codes" id="error-codes">
        <div class="scroll" tabIndex={0} role="region" aria-labelledby="error-codes">
          <table>
            <thead>
              <tr>
                <th>Code</th>
                <th>What it means</th>
                <th>What to do</th>
                <th>Connection</th>
                <th>Again?</th>
              </tr>
            </thead>
            <tbody>
              {errors.map((row) => (
                <tr key={row.code}>
                  <th scope="row">
                    <code>{row.code}</code>
                  </th>
                  <td>{row.meaning}</td>
                  <td>{row.remedy}</td>
                  <td>{row.connection}</td>
                  <td>{row.retry ? 'yes, after a pause' : 'no'}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </Panel>
      <Panel title="Close codes" id="close-codes">
        <div class="scroll" tabIndex={0} role="region" aria-labelledby="close-codes">
          <table>
            <thead>
              <tr>
                <th>Code</th>
                <th>What it means</th>
                <th>What to do</th>
                <th>Connect again by itself?</th>
              </tr>
            </thead>
            <tbody>
              {closes.map((row) => (
                <tr key={row.code}>
                  <th scope="row">
                    <code>{row.code}</code>
                  </th>
                  <td>{row.meaning}</td>
                  <td>{row.remedy}</td>
                  <td>{row.reconnect ? 'yes' : 'no'}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </Panel>
    </>
  )
}
