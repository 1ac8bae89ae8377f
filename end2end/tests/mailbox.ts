import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import PostalMime from "postal-mime";
import { expect } from "./support";

interface Mail {
  subject: string;
  text: string;
  html: string;
}

/** The folder in which the mail server keeps what it gets, and that in which the cluster keeps what it would send. */
export const MAIL_SERVER = "mail";
export const CLUSTER = "cluster-mail";

async function mailsTo(address: string, mailbox: string): Promise<Mail[]> {
  const folder = join(process.env.E2E_HOME!, mailbox);
  const files = existsSync(folder) ? readdirSync(folder).filter((file) => file.endsWith(".eml")) : [];
  const mails = await Promise.all(files.map((file) => PostalMime.parse(readFileSync(join(folder, file)))));
  const mine = mails.filter(({ to }) => to?.some((recipient) => recipient.address === address));
  return mine.map(({ subject = "", text = "", html = "" }) => ({ subject, text, html }));
}

/** Waits for the mail to this address with this subject, and returns it. */
export async function mailTo(address: string, subject: RegExp, mailbox = MAIL_SERVER): Promise<Mail> {
  const matching = async () => (await mailsTo(address, mailbox)).filter((mail) => subject.test(mail.subject));
  await expect.poll(async () => (await matching()).length, `${subject} to ${address}`).toBeGreaterThan(0);
  const [mail, ...others] = await matching();
  expect(others, "one such mail").toEqual([]);
  return mail;
}

/** Waits for that mail, and returns the path of the link in it. */
export async function linkIn(address: string, subject: RegExp, mailbox = MAIL_SERVER): Promise<string> {
  const { text } = await mailTo(address, subject, mailbox);
  const link = new URL(/http\S*token=\S+/.exec(text)![0]);
  return link.pathname + link.search;
}
