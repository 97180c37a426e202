import cliProgress from "cli-progress";

export type Progress = {
  /** A measure begins. */
  readonly begin: (title: string) => void;
  readonly say: (text: string) => void;
  readonly end: () => void;
};

/** Shows how far a run of so many measures is: a bar on a terminal, else a line for each step. */
export function showProgress(measures: number): Progress {
  if (!process.stderr.isTTY) return lines(measures);
  const bar = new cliProgress.SingleBar({ format: "{bar} {value}/{total} · {title}: {text}", hideCursor: true });
  let begun = 0;
  bar.start(measures, 0, { title: "", text: "" });
  return {
    begin: (title) => bar.update(begun++, { title, text: "starting" }),
    say: (text) => bar.update({ text }),
    end: () => {
      bar.update(measures, { title: "done", text: "" });
      bar.stop();
    },
  };
}

function lines(measures: number): Progress {
  let begun = 0;
  return {
    begin: (title) => console.error(`${++begun}/${measures} ${title}`),
    say: (text) => console.error(`    ${text}`),
    end: () => {},
  };
}
