// SPDX-License-Identifier: MIT OR Apache-2.0
//! Accounts: RAM (bytes) and capabilities.
//!
//! The sum of all accounts never changes once the first one is endowed: quota moves. What an account uses it can't give away.

use alloc::vec::Vec;
use cloister_session::{Error, Quota, Resources};

/// Names an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(usize);

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    quota: Quota,
    reference: Option<AccountId>,
    /// Where quota goes at the end, should there be no reference account.
    donor: Option<AccountId>,
    open: bool,
}

/// All accounts.
#[derive(Debug, Default)]
pub struct Accounts {
    accounts: Vec<Account>,
}

impl Accounts {
    /// No accounts.
    #[must_use]
    pub const fn new() -> Self {
        Self { accounts: Vec::new() }
    }

    /// Opens the account that has everything.
    pub fn endow(&mut self, all: Resources) -> AccountId {
        let quota = Quota { ram: all.ram, caps: all.caps, ..Quota::default() };
        self.add(Account { quota, reference: None, donor: None, open: true })
    }

    /// Opens an account with what `donor` gives.
    ///
    /// # Errors
    /// `OutOfRam`, `OutOfCaps` if the donor has not got it.
    pub fn open(&mut self, donor: AccountId, donation: Resources) -> Result<AccountId, Error> {
        let id = self.add(Account { donor: Some(donor), open: true, ..Account::default() });
        match self.transfer(donor, id, donation) {
            Ok(()) => Ok(id),
            Err(error) => {
                self.accounts[id.0].open = false;
                Err(error)
            }
        }
    }

    fn add(&mut self, account: Account) -> AccountId {
        match self.accounts.iter().position(|place| !place.open) {
            Some(index) => {
                self.accounts[index] = account;
                AccountId(index)
            }
            None => {
                self.accounts.push(account);
                AccountId(self.accounts.len() - 1)
            }
        }
    }

    /// State of an account.
    #[must_use]
    pub fn quota(&self, id: AccountId) -> Quota {
        self.accounts.get(id.0).map(|account| account.quota).unwrap_or_default()
    }

    /// Uses some of an account.
    ///
    /// # Errors
    /// `OutOfRam`, `OutOfCaps` with what was needed and what there was; then nothing is used.
    pub fn withdraw(&mut self, id: AccountId, amount: Resources) -> Result<(), Error> {
        check(self.quota(id), amount)?;
        let quota = &mut self.accounts[id.0].quota;
        quota.ram_used += amount.ram;
        quota.caps_used += amount.caps;
        Ok(())
    }

    /// Gives back what was used.
    pub fn deposit(&mut self, id: AccountId, amount: Resources) {
        let quota = &mut self.accounts[id.0].quota;
        debug_assert!(quota.ram_used >= amount.ram && quota.caps_used >= amount.caps);
        quota.ram_used = quota.ram_used.saturating_sub(amount.ram);
        quota.caps_used = quota.caps_used.saturating_sub(amount.caps);
    }

    /// Moves free quota.
    ///
    /// # Errors
    /// `OutOfRam`, `OutOfCaps` if `from` has not got it; then nothing is moved.
    pub fn transfer(&mut self, from: AccountId, to: AccountId, amount: Resources) -> Result<(), Error> {
        check(self.quota(from), amount)?;
        let giver = &mut self.accounts[from.0].quota;
        giver.ram -= amount.ram;
        giver.caps -= amount.caps;
        // No overflow: the sum over all accounts is what the first was endowed with.
        let taker = &mut self.accounts[to.0].quota;
        taker.ram += amount.ram;
        taker.caps += amount.caps;
        Ok(())
    }

    /// Moves free quota between an account and its reference account.
    ///
    /// # Errors
    /// `Denied` if neither is the other's reference; else as [`Self::transfer`].
    pub fn trade(&mut self, from: AccountId, to: AccountId, amount: Resources) -> Result<(), Error> {
        let related = self.accounts[from.0].reference == Some(to) || self.accounts[to.0].reference == Some(from);
        if !related {
            return Err(Error::Denied);
        }
        self.transfer(from, to, amount)
    }

    /// Sets the reference account, once.
    ///
    /// # Errors
    /// `Conflict` if there is one already; `Invalid` for the account itself, or if that would close a circle.
    pub fn set_reference(&mut self, id: AccountId, reference: AccountId) -> Result<(), Error> {
        if self.accounts[id.0].reference.is_some() {
            return Err(Error::Conflict);
        }
        let mut above = Some(reference);
        while let Some(account) = above {
            if account == id {
                return Err(Error::Invalid);
            }
            above = self.accounts[account.0].reference;
        }
        self.accounts[id.0].reference = Some(reference);
        Ok(())
    }

    /// Closes an account, of which nothing is used any more: the donor gets its `donation` back (less if there is less), the
    /// reference account the rest.
    pub fn close(&mut self, id: AccountId, donation: Resources) {
        let account = self.accounts[id.0];
        debug_assert_eq!((account.quota.ram_used, account.quota.caps_used), (0, 0));
        let (Some(donor), quota) = (account.donor, account.quota) else { return };
        self.accounts[id.0].quota.ram_used = 0;
        self.accounts[id.0].quota.caps_used = 0;
        let back = Resources { ram: donation.ram.min(quota.ram), caps: donation.caps.min(quota.caps) };
        let rest = Resources { ram: quota.ram - back.ram, caps: quota.caps - back.caps };
        // Nothing is used, so neither can fail.
        let _ = self.transfer(id, donor, back);
        let _ = self.transfer(id, account.reference.unwrap_or(donor), rest);
        self.accounts[id.0] = Account::default();
        for other in &mut self.accounts {
            if other.reference == Some(id) {
                other.reference = account.reference;
            }
            if other.donor == Some(id) {
                other.donor = Some(donor);
            }
        }
    }

    /// Sum of all accounts. Never changes.
    #[must_use]
    pub fn total(&self) -> Resources {
        self.accounts.iter().fold(Resources::default(), |sum, account| Resources {
            ram: sum.ram + account.quota.ram,
            caps: sum.caps + account.quota.caps,
        })
    }

    /// Sum of what is used.
    #[must_use]
    pub fn used(&self) -> Resources {
        self.accounts.iter().fold(Resources::default(), |sum, account| Resources {
            ram: sum.ram + account.quota.ram_used,
            caps: sum.caps + account.quota.caps_used,
        })
    }
}

fn check(quota: Quota, amount: Resources) -> Result<(), Error> {
    let available = quota.available();
    if amount.ram > available.ram {
        return Err(Error::OutOfRam { needed: amount.ram, available: available.ram });
    }
    if amount.caps > available.caps {
        return Err(Error::OutOfCaps { needed: amount.caps, available: available.caps });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{AccountId, Accounts};
    use cloister_session::{Error, Resources};
    use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
    use std::vec::Vec;

    const ALL: Resources = Resources { ram: 1 << 30, caps: 1000 };

    const fn amount(ram: u64, caps: u64) -> Resources {
        Resources { ram, caps }
    }

    #[test]
    fn running_out_names_both_numbers_and_changes_nothing() {
        let mut accounts = Accounts::new();
        let root = accounts.endow(ALL);
        let child = accounts.open(root, amount(100, 3)).expect("quota");
        assert_eq!(accounts.withdraw(child, amount(101, 0)), Err(Error::OutOfRam { needed: 101, available: 100 }));
        assert_eq!(accounts.withdraw(child, amount(1, 4)), Err(Error::OutOfCaps { needed: 4, available: 3 }));
        assert_eq!(accounts.quota(child).ram_used, 0);
        accounts.withdraw(child, amount(60, 1)).expect("quota");
        assert_eq!(accounts.transfer(child, root, amount(41, 0)), Err(Error::OutOfRam { needed: 41, available: 40 }));
    }

    #[test]
    fn only_relatives_trade() {
        let mut accounts = Accounts::new();
        let root = accounts.endow(ALL);
        let one = accounts.open(root, amount(100, 3)).expect("quota");
        let other = accounts.open(root, amount(100, 3)).expect("quota");
        assert_eq!(accounts.trade(one, other, amount(1, 1)), Err(Error::Denied));
        accounts.set_reference(one, root).expect("first time");
        assert_eq!(accounts.set_reference(one, other), Err(Error::Conflict));
        assert_eq!(accounts.set_reference(root, one), Err(Error::Invalid));
        accounts.set_reference(other, one).expect("first time");
        accounts.trade(one, other, amount(1, 1)).expect("related");
        accounts.trade(other, one, amount(2, 2)).expect("related");
        assert_eq!(accounts.quota(one).ram, 101);
    }

    #[test]
    fn closing_returns_the_donation_to_the_donor_and_the_rest_to_the_reference() {
        let mut accounts = Accounts::new();
        let root = accounts.endow(ALL);
        let nested = accounts.open(root, amount(1000, 100)).expect("quota");
        let child = accounts.open(root, amount(100, 3)).expect("quota");
        accounts.set_reference(child, nested).expect("first time");
        accounts.trade(nested, child, amount(50, 5)).expect("related");
        accounts.close(child, amount(100, 3));
        assert_eq!(accounts.quota(nested).ram, 1000);
        assert_eq!(accounts.quota(root).ram, ALL.ram - 1000);
        assert_eq!(accounts.total(), ALL);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Open(usize, Resources),
        Use(usize, Resources),
        Back(usize),
        Trade(usize, usize, Resources),
        Reference(usize, usize),
        Close(usize),
    }

    fn resources() -> impl Strategy<Value = Resources> {
        (0_u64..(1 << 29), 0_u64..600).prop_map(|(ram, caps)| Resources { ram, caps })
    }

    fn step() -> impl Strategy<Value = Step> {
        let which = any::<prop::sample::Index>().prop_map(|index| index.index(64));
        let which = move || which.clone();
        proptest::prop_oneof![
            (which(), resources()).prop_map(|(at, r)| Step::Open(at, r)),
            (which(), resources()).prop_map(|(at, r)| Step::Use(at, r)),
            which().prop_map(Step::Back),
            (which(), which(), resources()).prop_map(|(from, to, r)| Step::Trade(from, to, r)),
            (which(), which()).prop_map(|(from, to)| Step::Reference(from, to)),
            which().prop_map(Step::Close),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_made_and_nothing_is_lost(steps in prop::collection::vec(step(), 0..200)) {
            let mut accounts = Accounts::new();
            let root = accounts.endow(ALL);
            // Open accounts, with what was donated to and what is used of each.
            let mut open: Vec<(AccountId, Resources, Resources)> = [(root, ALL, Resources::default())].to_vec();
            for step in steps {
                let at = |index: usize| index % open.len();
                match step {
                    Step::Open(donor, donation) => {
                        if let Ok(id) = accounts.open(open[at(donor)].0, donation) {
                            prop_assert!(open.iter().all(|(other, ..)| *other != id));
                            open.push((id, donation, Resources::default()));
                        }
                    }
                    Step::Use(index, amount) => {
                        let index = at(index);
                        if accounts.withdraw(open[index].0, amount).is_ok() {
                            open[index].2.ram += amount.ram;
                            open[index].2.caps += amount.caps;
                        }
                    }
                    Step::Back(index) => {
                        let index = at(index);
                        accounts.deposit(open[index].0, open[index].2);
                        open[index].2 = Resources::default();
                    }
                    Step::Trade(from, to, amount) => {
                        let _ = accounts.trade(open[at(from)].0, open[at(to)].0, amount);
                    }
                    Step::Reference(from, to) => {
                        let _ = accounts.set_reference(open[at(from)].0, open[at(to)].0);
                    }
                    Step::Close(index) => {
                        let index = at(index);
                        if index != 0 {
                            let (id, donation, used) = open.remove(index);
                            accounts.deposit(id, used);
                            accounts.close(id, donation);
                        }
                    }
                }
                prop_assert_eq!(accounts.total(), ALL);
                for (id, _, used) in &open {
                    let quota = accounts.quota(*id);
                    prop_assert_eq!((quota.ram_used, quota.caps_used), (used.ram, used.caps));
                    prop_assert!(quota.ram_used <= quota.ram && quota.caps_used <= quota.caps);
                }
            }
        }
    }
}
